"""What was measured, as it is kept: a file for each workload in results/, with all that tables and plots need."""

import json
import statistics
from pathlib import Path

from workloads import WORKLOADS

FOLDER = Path(__file__).resolve().parent / "results"


class Results:
    """Of one workload. `rounds` of a variant are in the order in which they were run; None is one that failed."""

    def __init__(self, workload, kept):
        self.workload, self.kept = workload, kept

    def rounds(self, key):
        return self.kept["variants"].get(key, {}).get("rounds", [])

    def values(self, key, figure):
        """Of the rounds that did not fail and have it."""
        return [r[figure] for r in self.rounds(key) if r and r.get(figure) is not None]

    def median(self, key, figure):
        values = self.values(key, figure)
        return statistics.median(values) if values else None

    def wrong(self, key):
        return sum(r.get("wrong", 0) for r in self.rounds(key) if r)

    def failures(self, key):
        return self.kept["variants"].get(key, {}).get("failures", [])

    def ratios(self, ours, theirs, figure, at_most=False):
        """Ours to theirs in each round in which neither failed; of several of theirs, to the best."""
        best = min if at_most else max
        found = []
        for number, round_ in enumerate(self.rounds(ours)):
            others = [self.rounds(key)[number] for key in theirs if number < len(self.rounds(key))]
            others = [other[figure] for other in others if other and other.get(figure)]
            if round_ and round_.get(figure) is not None and others:
                found.append(round_[figure] / best(others))
        return found

    def check(self, check):
        """The figures that are held to the bar."""
        if check.theirs:
            return self.ratios(check.ours, check.theirs, check.figure, check.at_most)
        return self.values(check.ours, check.figure)

    def is_met(self, check):
        """None where there is no bar or no figure. A figure of a run in which a delivery was wrong meets none."""
        values = self.check(check)
        if check.bar is None or not values:
            return None
        median = statistics.median(values)
        is_met = median <= check.bar if check.at_most else median >= check.bar
        return is_met and self.wrong(check.ours) == 0

    def variants(self):
        """Those that were run at least once, or were to be."""
        return [variant for variant in self.workload.variants if variant.key in self.kept["variants"]]


def significant(value):
    """To five digits: nothing that is measured here has more."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def keep(name, kept):
    """One line for each round, so that a new run is a change that can be read."""
    FOLDER.mkdir(exist_ok=True)
    head = {key: value for key, value in kept.items() if key != "variants"}
    text = json.dumps(head, indent=1)[:-2] + ',\n "variants": {\n'
    blocks = []
    for key, variant in kept["variants"].items():
        rounds = ",\n".join("    " + json.dumps(round_) for round_ in variant["rounds"])
        rest = json.dumps({name: value for name, value in variant.items() if name != "rounds"})[1:-1]
        blocks.append(f'  {json.dumps(key)}: {{{rest}, "rounds": [\n{rounds}]}}')
    (FOLDER / f"{name}.json").write_text(text + ",\n".join(blocks) + "\n }\n}\n")


def load(workload):
    """None where it was not run yet."""
    try:
        return Results(workload, json.loads((FOLDER / f"{workload.name}.json").read_text()))
    except FileNotFoundError:
        return None


def load_all():
    return {workload.name: load(workload) for workload in WORKLOADS}


