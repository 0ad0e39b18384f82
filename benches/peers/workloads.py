"""What is run, against whom, and which bar each figure is held to."""

from dataclasses import dataclass

# What both tandem and the limit server speak.
LANGUAGES = ("wamp.2.json", "wamp.2.msgpack", "stomp")
SAID = {"wamp.2.json": "JSON", "wamp.2.msgpack": "MessagePack", "stomp": "STOMP"}
TITLES = {"tandem": "tandem", "limit": "limit server", "nats": "NATS", "rabbitmq": "RabbitMQ", "activemq": "ActiveMQ",
          "mosquitto": "Mosquitto", "crossbar": "Crossbar"}

# Those who only hold connections open do not answer pings.
NO_PINGS = "[websocket]\nping_interval_s = 36000\n"

IDLE_CONNECTIONS = 15_000
STARTS = 20


@dataclass
class Variant:
    """One way to run a workload against a broker. `words` are those of `tandem bench`."""

    broker: str
    label: str
    words: str
    scheme: str = "ws"
    # Tandem with something of its own runs in a process of its own.
    place: str = ""
    config: str = ""
    # How it is run: bench, idle (with a broker just started), start.
    how: str = "bench"

    @property
    def key(self):
        return f"{self.broker} {self.label}".strip()

    @property
    def title(self):
        return f"{TITLES[self.broker]} {self.label}".strip()


@dataclass
class Check:
    """A figure that is held to a bar: ours, or the ratio of ours to theirs in each round (to the best of them)."""

    said: str
    ours: str
    theirs: tuple = ()
    figure: str = "per_cpu"
    bar: float = None
    at_most: bool = False
    unit: str = ""


@dataclass
class Row:
    """A row of the summary."""

    what: str
    against: str
    bar: str
    checks: list


@dataclass
class Workload:
    name: str
    title: str
    variants: list
    rows: list
    persistent: bool = False
    # Whoever compiles itself while it runs needs a first round of full length.
    has_long_first_round: bool = False
    rounds_max: int = 1000
    # Of few messages in a second, the slowest hundredth takes longer to show.
    duration_factor: float = 1
    # Beyond the measured time, in seconds: for a run, and for the brokers' start and end.
    run_extra_s: float = 0.3
    extra_s: float = 3
    axis: str = "deliveries per CPU-second of the broker"
    shows_percentiles: bool = False

    @property
    def is_of_tandem_alone(self):
        return all(variant.broker == "tandem" for variant in self.variants)


def spoken(broker, words, languages=LANGUAGES):
    return [Variant(broker, language, f"{words} --language {language}") for language in languages]


def each(languages, theirs, bar, **more):
    """Ours in each language against theirs: in the same language where there are several of theirs."""
    return [Check(SAID[language], f"tandem {language}", (theirs.format(language=language),), bar=bar, **more)
            for language in languages]


def queue(name, title, words, rows, persistent):
    words = f"queue {words} --size 128" + (" --persistent" if persistent else "")
    return Workload(name, title, [Variant(broker, "", words, "stomp") for broker in ("tandem", "rabbitmq", "activemq")],
                    rows, persistent, has_long_first_round=True, run_extra_s=0.6, extra_s=30 if persistent else 20,
                    axis="messages per CPU-second of the broker")


def fanout(subscribers):
    words = f"fanout --subscribers {subscribers} --size 128"
    what = f"fan-out to {subscribers}, 128 bytes"
    # It reads all there is before it writes anything: with a larger window the first delivery takes seconds.
    few = f" --window {1000 // subscribers}"
    return Workload(
        f"fanout-{subscribers}", f"Fan-out to {subscribers}, 128 bytes, over WebSocket",
        [*spoken("tandem", words), *spoken("limit", words), Variant("nats", "", f"{words} --language nats"),
         Variant("rabbitmq", "stomp", f"{words} --language stomp"),
         Variant("crossbar", "wamp.2.json", f"{words} --language wamp.2.json{few}")],
        [Row(what, "NATS over WebSocket", "1.2", each(LANGUAGES, "nats", 1.2)),
         Row(what, "the limit server, same frames", "0.4", each(LANGUAGES, "limit {language}", 0.4)),
         Row(what, "RabbitMQ web-stomp", "40", each(["stomp"], "rabbitmq stomp", 40)),
         Row(what, "Crossbar", "40", each(["wamp.2.json"], "crossbar wamp.2.json", 40))],
        run_extra_s=1.0, extra_s=20)


def with_mosquitto(name, title, words, rows, **more):
    languages = ("wamp.2.msgpack", "stomp")
    return Workload(
        name, title,
        [*spoken("tandem", words, languages), *spoken("limit", words, languages),
         Variant("mosquitto", "", f"{words} --language mqtt", "mqtt")], rows, **more)


def latency():
    what, both = "200 messages/s to 10", ("wamp.2.msgpack", "stomp")
    return with_mosquitto(
        "latency", "200 messages/s to 10; Mosquitto over TCP", "latency --rate 200 --subscribers 10 --size 128",
        [Row(f"{what}: CPU", "Mosquitto over TCP", "1.0", each(both, "mosquitto", 1.0)),
         Row(f"{what}: p50", "Mosquitto over TCP", "a figure", each(both, "mosquitto", None, figure="p50")),
         Row(f"{what}: p99", "Mosquitto over TCP", "at most 1.5", each(both, "mosquitto", 1.5, figure="p99", at_most=True)),
         Row(f"{what}: CPU", "the limit server", "a figure", each(both, "limit {language}", None)),
         Row(f"{what}: p99", "the limit server", "at most 1.5",
             each(both, "limit {language}", 1.5, figure="p99", at_most=True))],
        duration_factor=2, shows_percentiles=True)


def topics():
    words = "topics --topics 50 --size 128"
    return Workload(
        "topics", "50 topics, one publisher and one subscriber each, 128 bytes, over WebSocket",
        [*spoken("tandem", words), Variant("nats", "", f"{words} --language nats")],
        [Row("50 topics, 1 to 1, 128 bytes", "NATS over WebSocket", "1.2", each(LANGUAGES, "nats", 1.2))])


def calls():
    words = "calls --callers 4 --callees 4 --in-flight 16 --size 128"
    return Workload(
        "calls", "Calls: 4 callers, 4 callees, 16 of each caller in flight, over WebSocket",
        [*spoken("tandem", words, LANGUAGES[:2]), Variant("nats", "", f"{words} --language nats"),
         *spoken("crossbar", words, LANGUAGES[:1])],
        [Row("calls, 4 to 4, 16 in flight", "NATS request and reply", "1.0", each(LANGUAGES[:2], "nats", 1.0)),
         Row("calls, 4 to 4, 16 in flight", "Crossbar", "1.0", each(LANGUAGES[:1], "crossbar wamp.2.json", 1.0))],
        extra_s=15, axis="calls per CPU-second of the broker")


def mixed():
    words = "fanout --subscribers 100 --size 128"
    one, half = "tandem all JSON", "tandem half JSON, half STOMP"
    return Workload(
        "mixed", "Fan-out to 100, half of the subscribers in the other language",
        [Variant("tandem", "all JSON", f"{words} --language wamp.2.json"),
         Variant("tandem", "half JSON, half STOMP", f"{words} --language wamp.2.json,stomp"),
         Variant("tandem", "all STOMP", f"{words} --language stomp")],
        [Row("fan-out to 100, half JSON, half STOMP", "all JSON", "0.8", [Check("", half, (one,), bar=0.8)]),
         Row("fan-out to 100, half JSON, half STOMP", "all STOMP", "a figure", [Check("", half, ("tandem all STOMP",))])])


def deflate():
    words = "fanout --subscribers 10 --size 1024 --words --language wamp.2.json"
    plain, compressed = "tandem plain", "tandem permessage-deflate"
    return Workload(
        "deflate", "Fan-out to 10 with permessage-deflate, 1 KiB of words",
        [Variant("tandem", "plain", words), Variant("tandem", "permessage-deflate", f"{words} --compress")],
        [Row("fan-out to 10, 1 KiB of words, permessage-deflate", "without", "0.5",
             [Check("", compressed, (plain,), bar=0.5)]),
         # Its own greetings are compressed as well.
         Row("the same: compressions of each message", "", "once",
             [Check("", compressed, figure="compressions", bar=1.01, at_most=True)])])


def patterns():
    variants, rows = [], []
    for kind in ("exact", "prefix", "wildcard"):
        for count, said in ((1000, "1 thousand"), (1_000_000, "1 million")):
            # The other's patterns are not to be there, nor is its tidying up.
            variants.append(Variant("tandem", f"{said} {kind}", f"patterns --kind {kind} --patterns {count}",
                                    place=f"tandem {said} {kind}", config=NO_PINGS))
        rows.append(Check(kind, f"tandem 1 million {kind}", (f"tandem 1 thousand {kind}",), bar=0.8))
    return Workload("patterns", "Publishing beside a million patterns that do not match", variants,
                    [Row("publish beside 1 million patterns", "beside 1 thousand", "0.8", rows)], run_extra_s=4)


def slow():
    words = "slow --subscribers 100 --size 128 --language wamp.2.json --stalled"
    none, one = "tandem none stalled", "tandem one more stalled"
    return Workload(
        "slow", "Fan-out to 100 while one more subscriber stalls",
        [Variant("tandem", "none stalled", f"{words} 0"), Variant("tandem", "one more stalled", f"{words} 1")],
        [Row("fan-out to 100 while one more stalls", "without it", "0.95", [Check("", one, (none,), bar=0.95)]),
         Row("the same: p99", "without it", "at most 1.1",
             [Check("", one, (none,), figure="p99", bar=1.1, at_most=True)])])


def idle():
    words = f"idle --connections {IDLE_CONNECTIONS} --language wamp.2.json"
    kinds = (("plain", 1536, "ws", ""), ("permessage-deflate", 2048, "ws", " --compress"), ("TLS", 12288, "wss", ""))
    return Workload(
        "idle", "Idle connections with a subscription each",
        [Variant("tandem", said, words + more, scheme, config=NO_PINGS, how="idle")
         for said, _, scheme, more in kinds],
        [Row(f"{IDLE_CONNECTIONS:,} idle connections, bytes of the process each", "",
             "at most 1,536; with compression 2,048; TLS 12,288",
             [Check(said, f"tandem {said}", figure="bytes", bar=bar, at_most=True) for said, bar, _, _ in kinds])],
        rounds_max=3, run_extra_s=18, extra_s=0)


def start():
    return Workload(
        "start", "Start",
        [Variant("tandem", "", "serve", how="start")],
        [Row("start to first publish acknowledged", "", "at most 50 ms",
             [Check("", "tandem", figure="start_ms", bar=50, at_most=True, unit=" ms")]),
         Row("the same: resident then", "", "at most 15 MiB",
             [Check("", "tandem", figure="mib", bar=15, at_most=True, unit=" MiB")])],
        rounds_max=1, run_extra_s=STARTS * 0.3, extra_s=0)


def against(peer, said, bar=None):
    return [Check(said, "tandem", (peer,), bar=bar)]


WORKLOADS = [
    fanout(10),
    fanout(100),
    with_mosquitto("fanout-10-16k", "Fan-out to 10, 16 KiB; Mosquitto over TCP", "fanout --subscribers 10 --size 16384",
                   [Row("fan-out to 10, 16 KiB", "Mosquitto over TCP", "1.2",
                        each(("wamp.2.msgpack", "stomp"), "mosquitto", 1.2))]),
    topics(),
    mixed(),
    calls(),
    latency(),
    queue("queue", "2 producers with receipts, 2 consumers, in memory",
          "--producers 2 --window 64 --consumers 2 --prefetch 100",
          [Row("queue in memory, 2 and 2", "RabbitMQ, ActiveMQ", "10",
               against("rabbitmq", "RabbitMQ", 10) + against("activemq", "ActiveMQ", 10))], persistent=False),
    queue("queue-persistent-2", "2 producers with receipts, 2 consumers, persistent",
          "--producers 2 --window 64 --consumers 2 --prefetch 100",
          [Row("queue persistent, 2 and 2", "the better of RabbitMQ and ActiveMQ", "2",
               [Check("", "tandem", ("rabbitmq", "activemq"), bar=2)])], persistent=True),
    queue("queue-persistent", "64 producers with receipts, 4 consumers, persistent",
          "--producers 64 --window 1 --consumers 4 --prefetch 100",
          [Row("queue persistent, 64 and 4", "RabbitMQ, ActiveMQ", "a figure",
               against("rabbitmq", "RabbitMQ") + against("activemq", "ActiveMQ")),
           Row("the same: receipts for each fsync", "", "20",
               [Check("", "tandem", figure="receipts_per_fsync", bar=20)])], persistent=True),
    deflate(),
    patterns(),
    slow(),
    idle(),
    start(),
]
