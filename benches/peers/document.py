"""The tables of docs/performance.md, from what is kept in results/."""

import os
import statistics
from pathlib import Path

from workloads import IDLE_CONNECTIONS, WORKLOADS

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs/performance.md"
NOT_YET = "not measured yet"


def count(value):
    return "" if value is None else f"{value:,.0f}"


def ratio(value):
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def spread(values, form=ratio, mark=""):
    """The median, with the smallest and the largest."""
    middle = f"{mark}{form(statistics.median(values))}{mark}"
    return middle if len(values) == 1 else f"{middle} ({form(min(values))} to {form(max(values))})"


def in_rows(rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def table(found):
    """The table of a workload: a row for each way in which it was run."""
    workload = found.workload
    if workload.name == "idle":
        return idle_table(found)
    if workload.name == "start":
        return start_table(found)
    head = ["broker", "messages/s", "per CPU-second of the broker",
            "ratio (per CPU-second; smallest to largest)" if workload.is_of_tandem_alone
            else "tandem is (per CPU-second; smallest to largest)"]
    columns = [("messages/s", "rate")] * (not workload.is_of_tandem_alone)
    # A p99 that is held to a bar is compared as well.
    if any(check.figure == "p99" for row in workload.rows for check in row.checks):
        columns += [("p99", "p99")]
    head += [f"({name})" for name, _ in columns] + ["p50, p99 ms", "MiB", "load generator"]
    if workload.persistent:
        head.append("messages per fsync")
    rows = [head, ["---"] + ["--:"] * (len(head) - 1)]
    for variant in found.variants():
        key = variant.key
        if not found.values(key, "per_cpu"):
            rows.append([variant.title, "nothing came in time"] + [""] * (len(head) - 2))
            continue
        rows.append([
            variant.title + (f" (**{found.wrong(key)} wrong**)" if found.wrong(key) else ""),
            count(found.median(key, "rate")), count(found.median(key, "per_cpu")),
            ratios(found, variant, "per_cpu"), *(ratios(found, variant, figure) for _, figure in columns),
            times(found, key), count(found.median(key, "mib")), f"{100 * found.median(key, 'generator'):.0f} %"])
        if workload.persistent:
            each = found.kept["variants"][key].get("messages_per_fsync")
            rows[-1].append(f"{each:.1f}" if each else "no fsync")
    return in_rows(rows)


def times(found, key):
    p50, p99 = found.median(key, "p50"), found.median(key, "p99")
    return "" if p50 is None else f"{p50 / 1000:.2f}, {p99 / 1000:.1f}"


def ratios(found, variant, figure):
    """How tandem compares, in the row of whom it is compared with; of tandem alone, in the row of what is compared."""
    lines = []
    for said, ours, theirs in compared(found, variant, figure):
        values = found.ratios(ours, [theirs], figure)
        if values:
            shown = spread(values, mark="**") if figure == "per_cpu" else ratio(statistics.median(values))
            lines.append(said.format(shown))
    return "<br>".join(lines)


def compared(found, variant, figure):
    """Which ratios stand in a row: what is said of each, whose figure it is, and of whom."""
    if found.workload.is_of_tandem_alone:
        checks = [check for row in found.workload.rows for check in row.checks]
        return [(f"{{}} of {check.theirs[0].removeprefix('tandem ')}", check.ours, check.theirs[0])
                for check in checks if check.ours == variant.key and check.theirs and check.figure == figure]
    if variant.broker == "tandem":
        return []
    # Against the same language where tandem speaks it here, else against each that it speaks.
    ours = {own.label: own.key for own in found.variants() if own.broker == "tandem"}
    if variant.label in ours:
        return [("{}", ours[variant.label], variant.key)]
    return [(f"{label} {{}}".strip(), key, variant.key) for label, key in ours.items()]


def idle_table(found):
    rows = [["connections", "bytes of the process each (smallest to largest)", "MiB with all of them"], ["---", "--:", "--:"]]
    for variant in found.variants():
        values = found.values(variant.key, "bytes")
        shown = spread(values, count, "**") if values else NOT_YET
        wrong = f" (**{found.wrong(variant.key)} wrong**)" if found.wrong(variant.key) else ""
        rows.append([f"{IDLE_CONNECTIONS:,} {variant.label}{wrong}", shown, count(found.median(variant.key, "mib"))])
    return in_rows(rows)


def start_table(found):
    rows = [["", "median (smallest to largest)"], ["---", "--:"]]
    for said, figure in (("ms from exec to the first PUBLISH acknowledged", "start_ms"), ("MiB resident then", "mib")):
        values = found.values("tandem", figure)
        rows.append([said, spread(values, lambda value: f"{value:.1f}", "**") if values else NOT_YET])
    return in_rows(rows)


def section(found):
    """What stands between the marks of a workload: table, plot, and how it was measured."""
    return f"{table(found)}\n\n{picture(found.workload)}{circumstances(found)}"


def picture(workload):
    if workload.name in ("idle", "start"):
        return ""
    shown = f"![{workload.title}: {workload.axis}; the figures are in the table.](performance/{workload.name}.svg)\n\n"
    if workload.shows_percentiles:
        shown += (f"![{workload.title}: percentiles of the time until delivery.]"
                  f"(performance/{workload.name}-percentiles.svg)\n\n")
    return shown


def circumstances(found):
    kept = found.kept
    length = "" if found.workload.name in ("idle", "start") else f" of {kept['duration_s']:g} s"
    rounds = "20 starts" if found.workload.name == "start" else f"{kept['rounds']} round{'s' * (kept['rounds'] > 1)}{length}"
    load = f"load {kept['load']:.1f}" + ("" if kept["is_first"] else " (its own work before it included)")
    load += f", others used {kept['busy_cores']:.2f} cores"
    load += ": **too much for figures of time**" if kept["is_noisy"] else ""
    lines = [f"{kept['date']}, {rounds}; {kept['machine']}, {load}; {'; '.join(kept['versions'].values())}.",
             f"`{kept['command']}`; {commands(found)}."]
    if own := found.values("tandem", "receipts_per_fsync"):
        lines.append(f"By its own counters, over all rounds and without strace, tandem had {statistics.median(own):.1f} "
                     "receipts for each fsync.")
    for variant in found.variants():
        if each := found.values(variant.key, "compressions"):
            lines.append(f"By its own counters, tandem compressed each message {spread(each)} times, its greetings "
                         "counted with them.")
        for failure in found.failures(variant.key):
            lines.append(f"{variant.title}, {' '.join(failure.split())}.")
    lines += [f"{name} is left out: {why}." for name, why in kept["left_out"].items()]
    return "\n".join(lines) + "\n"


def commands(found):
    shown = list(dict.fromkeys(variant.words for variant in found.variants() if variant.how in ("bench", "idle")))
    if not shown:
        return "`start.py` speaks to a `tandem serve` just started"
    common = os.path.commonprefix([words + " " for words in shown])
    common = common[:common.rfind(" ")].strip()
    rest = [words[len(common):].strip() for words in shown]
    rest = ", ".join(f"`{words}`" for words in rest if words)
    tail = "; over TLS, with a URL of `wss://`" if any(variant.scheme == "wss" for variant in found.variants()) else ""
    return f"each run is `tandem bench {common}`" + (f", with {rest}" if rest else "") + tail


def measured(found, row):
    """What the summary says of a row, and how many of its bars are met, of how many."""
    lines, met = [], []
    for check in row.checks:
        values = found.check(check) if found else []
        if not values:
            lines.append(f"{check.said} {NOT_YET}".strip())
            met += [None] * (check.bar is not None)
            continue
        is_met = found.is_met(check)
        form = {"bytes": count, "start_ms": "{:.1f}".format, "mib": "{:.1f}".format}.get(check.figure, ratio)
        line = f"{check.said} {spread(values, form)}{check.unit}".strip()
        if wrong := found.wrong(check.ours):
            line += f", {wrong} wrong"
        lines.append(f"**{line}**" if is_met is False else line)
        if is_met is not None:
            met.append(is_met)
    return "<br>".join(dict.fromkeys(lines)), met


def summary(all_found):
    """A row for each of the issue's, with its bar."""
    rows = [["Workload", "against", "at least", "measured: median (smallest to largest)", "met"],
            ["---", "---", "---", "---", "---"]]
    all_met = []
    for workload in WORKLOADS:
        for row in workload.rows:
            text, met = measured(all_found[workload.name], row)
            all_met += met
            number = met.count(True)
            verdict = "yes" if number == len(met) else "**no**" if number == 0 else f"**{number} of {len(met)}**"
            if met.count(None) == len(met):
                # No bar, or no figure yet.
                verdict = ""
            rows.append([row.what, row.against, row.bar, text, verdict])
    dates = sorted({found.kept["date"] for found in all_found.values() if found})
    when = f" Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))}." if dates else ""
    return f"{in_rows(rows)}\n\n{all_met.count(True)} of {len(all_met)} bars are met.{when}\n"


def write(all_found):
    """Puts everything that is generated into its place."""
    text = DOCUMENT.read_text()
    text = put(text, "summary", summary(all_found))
    for workload in WORKLOADS:
        found = all_found[workload.name]
        text = put(text, workload.name, section(found) if found else f"{NOT_YET.capitalize()}.\n")
    DOCUMENT.write_text(text)


def put(text, name, generated):
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    if begin not in text or end not in text:
        raise SystemExit(f"{DOCUMENT} has no place for {name}")
    before, rest = text.split(begin, 1)
    return before + begin + generated + end + rest.split(end, 1)[1]
