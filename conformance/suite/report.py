"""The table."""

import sys
from collections import Counter
from dataclasses import dataclass

PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"


@dataclass
class Row:
    client: str
    version: str
    transport: str
    serializer: str
    what: str
    result: str
    why: str = ""
    seconds: float = 0.0

    @classmethod
    def of(cls, client, driver, what, result, why="", seconds=0.0):
        version = driver.about.get("version", "?") if driver else "-"
        if driver and isinstance(driver.about.get("versions"), dict):
            version = driver.about["versions"].get(client.params.get("library"), version)
        return cls(client.library, version, client.transport, client.serializer, what, result, why, seconds)


def shortened(why):
    first, _, more = why.partition("\n")
    return first if len(first) <= 120 and not more else f"{first[:120]}…"


class Report:
    """Prints rows as they come: a run can be watched, and is one table all the same."""

    columns = (("client", 16), ("version", 8), ("transport", 10), ("serializer", 15), ("what it did", 58), ("result", 7))

    def __init__(self, out=sys.stdout):
        self.rows, self.out = [], out
        self.line(*(title for title, _ in self.columns))
        self.line(*("-" * width for _, width in self.columns))

    def line(self, *cells, tail=""):
        padded = (cell.ljust(width) for cell, (_, width) in zip(cells, self.columns))
        print(("  ".join(padded) + f"  {tail}").rstrip(), file=self.out, flush=True)

    def add(self, row):
        self.rows.append(row)
        tail = shortened(row.why) if row.why else f"{row.seconds:.2f} s" if row.seconds > 3 else ""
        self.line(row.client, row.version, row.transport, row.serializer, row.what, row.result, tail=tail)

    def finish(self):
        """Repeats the failures, as they are what one scrolls for; True if there are none."""
        count = Counter(row.result for row in self.rows)
        failures = [row for row in self.rows if row.result == FAILED]
        if failures:
            print("\nFailed:", file=self.out)
            for row in failures:
                print(f"  {row.client} {row.version} {row.transport} {row.serializer}: {row.what}\n    {row.why}",
                      file=self.out)
        print(f"\n{count[PASSED]} passed, {count[FAILED]} failed, {count[SKIPPED]} skipped", file=self.out, flush=True)
        return not failures
