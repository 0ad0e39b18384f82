"""What is run, and against whom."""

from dataclasses import dataclass, field


@dataclass
class Variant:
    """One way to run a workload against a broker."""

    words: list
    scheme: str
    label: str = ""

    def arguments(self, broker):
        return [*self.words, "--url", broker.urls[self.scheme]]

    def shown(self):
        return " ".join(self.words)


@dataclass
class Workload:
    name: str
    title: str
    brokers: list
    words: str
    scheme: str = "stomp"
    persistent: bool = False
    # Other words for some broker: a list of (label, words, scheme).
    others: dict = field(default_factory=dict)

    def variants(self, broker):
        ways = self.others.get(broker, [("", self.words, self.scheme)])
        return [Variant(words.split(), scheme, label) for label, words, scheme in ways]


QUEUE = ["tandem", "rabbitmq", "activemq"]
ROUTERS = ["tandem", "nats", "crossbar"]
FANOUT = ["tandem", "limit", "nats", "rabbitmq", "crossbar"]
# What both tandem and the limit server speak.
LANGUAGES = ("wamp.2.json", "wamp.2.msgpack", "stomp")


def fanout(subscribers):
    words = f"fanout --subscribers {subscribers} --size 128 --language "
    return Workload(
        f"fanout-{subscribers}", f"Fan-out to {subscribers}, 128 bytes, over WebSocket", FANOUT, words, "ws",
        others={
            "tandem": [(name, words + name, "ws") for name in LANGUAGES],
            "limit": [(name, words + name, "ws") for name in LANGUAGES],
            "nats": [("", words + "nats", "ws")],
            "rabbitmq": [("stomp", words + "stomp", "ws")],
            # It reads all there is before it writes anything: with a larger window the first delivery takes seconds.
            "crossbar": [("wamp.2.json", words + f"wamp.2.json --window {1000 // subscribers}", "ws")],
        })


def calls():
    words = "calls --callers 4 --callees 4 --in-flight 16 --size 128 --language "
    return Workload(
        "calls", "Calls: 4 callers, 4 callees, 16 of each caller in flight, over WebSocket", ROUTERS, words, "ws",
        others={
            "tandem": [(name, words + name, "ws") for name in ("wamp.2.json", "wamp.2.msgpack")],
            "nats": [("", words + "nats", "ws")],
            "crossbar": [("wamp.2.json", words + "wamp.2.json", "ws")],
        })


def topics():
    words = "topics --topics 50 --size 128 --language "
    return Workload(
        "topics", "50 topics, one publisher and one subscriber each, 128 bytes, over WebSocket", ["tandem", "nats"],
        words, "ws",
        others={
            "tandem": [(name, words + name, "ws") for name in LANGUAGES],
            "nats": [("", words + "nats", "ws")],
        })


def mosquitto(name, title, words):
    return Workload(
        name, title, ["tandem", "limit", "mosquitto"], words, "ws",
        others={
            "limit": [(language, f"{words} --language {language}", "ws") for language in ("wamp.2.msgpack", "stomp")],
            "tandem": [(language, f"{words} --language {language}", "ws") for language in ("wamp.2.msgpack", "stomp")],
            "mosquitto": [("", f"{words} --language mqtt", "mqtt")],
        })


WORKLOADS = [
    Workload("queue-persistent", "64 producers with receipts, persistent", QUEUE,
             "queue --producers 64 --window 1 --consumers 4 --prefetch 100 --size 128 --persistent", persistent=True),
    Workload("queue-persistent-2", "2 producers with receipts, 2 consumers, persistent", QUEUE,
             "queue --producers 2 --window 64 --consumers 2 --prefetch 100 --size 128 --persistent", persistent=True),
    Workload("queue", "2 producers with receipts, 2 consumers, in memory", QUEUE,
             "queue --producers 2 --window 64 --consumers 2 --prefetch 100 --size 128"),
    fanout(10),
    fanout(100),
    topics(),
    calls(),
    mosquitto("fanout-10-16k", "Fan-out to 10, 16 KiB; Mosquitto over TCP", "fanout --subscribers 10 --size 16384"),
    mosquitto("latency", "200 messages/s to 10; Mosquitto over TCP",
              "latency --rate 200 --subscribers 10 --size 128"),
]
