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

WORKLOADS = [
    Workload("queue-persistent", "64 producers with receipts, persistent", QUEUE,
             "queue --producers 64 --window 1 --consumers 4 --prefetch 100 --size 128 --persistent", persistent=True),
]
