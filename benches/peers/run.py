#!/usr/bin/env python3
"""Runs the same workloads against tandem and its peers, in turn, several rounds, and writes the tables of
docs/performance.md.

    benches/peers/setup                                  # installs the peers
    cargo build --release
    benches/peers/run.py                                 # everything; about half an hour
    benches/peers/run.py --only queue-persistent         # one workload
    benches/peers/run.py --only queue-persistent --rounds 1 --duration 2 --no-write

Each broker of a workload runs from the first round to the last, so that what compiles itself while it runs has done
so; in each round each is loaded in turn, and idle otherwise. A round that is not counted comes first. What is
compared are the ratios of each round, of which the median is shown, with the smallest and largest."""

import argparse
import datetime
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import brokers
from workloads import WORKLOADS

ROOT = brokers.ROOT
DOCUMENT = ROOT / "docs/performance.md"


def bench(workload, broker, options):
    """One run of the load generator; what it found."""
    arguments = workload.arguments(broker)
    command = [str(brokers.Tandem.program), "bench", *arguments, *broker.login, "--json",
               "--warm-up", str(options.warm_up), "--duration", str(options.duration)]
    for pid in broker.pids():
        command += ["--server-pid", str(pid)]
    limit = options.warm_up + options.duration + 90
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    if not done.stdout:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    found = json.loads(done.stdout)
    if found["wrong"]:
        print(f"  {broker.name}: {found['wrong']} wrong, {found['wrong_examples']}", file=sys.stderr)
    return found


def syncs(workload, broker, options):
    """Receipts for each fsync and fdatasync, in one more run under strace, which slows everything down."""
    counted = Path(broker.folder) / "strace"
    trace = subprocess.Popen(["strace", "-f", "-qq", "-c", "-o", counted, "-e", "trace=fsync,fdatasync",
                              *[word for pid in broker.pids() for word in ("-p", str(pid))]],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    found = bench(workload, broker, options)
    trace.send_signal(signal.SIGINT)
    trace.wait(30)
    calls = 0
    for line in counted.read_text().splitlines():
        fields = line.split()
        if fields and fields[-1] in ("fsync", "fdatasync"):
            calls += int(fields[3])
    receipts = found["delivered_in_all"]
    return receipts, calls


def measure(workload, options, folder):
    """Runs a workload. Gives, for each broker, what each round found."""
    wanted = [name for name in workload.brokers if name in options.peers or name == "tandem"]
    running, found, extra = {}, {}, {}
    try:
        for name in wanted:
            kind = brokers.ALL[name]
            try:
                kind.version()
            except brokers.Unavailable as what:
                print(f"{name} is not here ({what}): left out", file=sys.stderr)
                continue
            running[name] = kind(folder, workload.persistent)
            running[name].launch()
        for broker in running.values():
            broker.wait_until_it_listens()
        for round_number in range(options.rounds + 1):
            # Whoever comes first after the others' work should not always be the same.
            names = list(running)
            names = names[round_number % len(names):] + names[:round_number % len(names)]
            for name in names:
                for variant in workload.variants(name):
                    result = bench(variant, running[name], options)
                    key = (name, variant.label)
                    if round_number > 0:
                        found.setdefault(key, []).append(result)
                    share = result.get("broker", {})
                    print(f"{workload.name} {round_number}/{options.rounds} {name} {variant.label}: "
                          f"{result['deliveries_per_second']:.0f}/s, "
                          f"{share.get('deliveries_per_cpu_second', 0):.0f} per CPU-second", file=sys.stderr)
        if workload.persistent:
            # Before strace slows it down.
            own = receipts_per_fsync(running["tandem"])
            extra = fsync_figures(workload, running, options)
            extra["tandem"]["own"] = own
    finally:
        for broker in running.values():
            broker.stop()
    return found, extra


def fsync_figures(workload, running, options):
    figures = {}
    for name, broker in running.items():
        receipts, calls = syncs(workload.variants(name)[0], broker, options)
        figures[name] = {"receipts": receipts, "fsyncs": calls}
        print(f"{workload.name} {name}: {receipts} messages, {calls} fsyncs", file=sys.stderr)
    return figures


def receipts_per_fsync(tandem):
    """As tandem counts them, over all rounds: each commit is two fsyncs."""
    counted = tandem.metrics()
    return counted["tandem_store_waiters_total"] / counted["tandem_store_commits_total"] / 2


def median(values):
    return statistics.median(values) if values else float("nan")


def ratio_of(pair, figure):
    """Of tandem's round to the peer's."""
    ours, theirs = map(figure, pair)
    return ours / theirs if theirs else float("inf")


def count(value):
    return f"{value:,.0f}"


def ratio(value):
    if value == float("inf"):
        return "nothing came in time"
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def table(workload, found, extra):
    """The table of a workload: a row for each broker."""
    ours = {label: rounds for (name, label), rounds in found.items() if name == "tandem"}
    head = ["broker", "messages/s", "per CPU-second of the broker", "tandem is (per CPU-second; smallest to largest)",
            "(messages/s)", "p50, p99 ms", "MiB", "load generator"]
    if extra:
        head.append("messages per fsync")
    rows = [head, ["---"] + ["--:"] * (len(head) - 1)]
    for (name, label), rounds in sorted(found.items(), key=lambda item: workload.brokers.index(item[0][0])):
        rate = [r["deliveries_per_second"] for r in rounds]
        per_cpu = [r["broker"]["deliveries_per_cpu_second"] for r in rounds]
        # Against the same language where tandem speaks it here, else against each that it speaks.
        bases = {} if name == "tandem" else {label: ours[label]} if label in ours else ours
        ratios = []
        for spoken, base in bases.items():
            pairs = list(zip(base, rounds))
            values = [ratio_of(pair, lambda r: r["broker"]["deliveries_per_cpu_second"]) for pair in pairs]
            wall = median([ratio_of(pair, lambda r: r["deliveries_per_second"]) for pair in pairs])
            said = "" if spoken == label else f"{spoken} "
            ratios.append((f"{said}**{ratio(median(values))}** ({ratio(min(values))} to {ratio(max(values))})",
                           f"{said}{ratio(wall)}"))
        times = [r.get("receipt_us") or r.get("delivery_us") or {"p50": 0, "p99": 0} for r in rounds]
        row = [f"{brokers.ALL[name].title} {label}".strip(), count(median(rate)), count(median(per_cpu)),
               "<br>".join(per_cpu for per_cpu, _ in ratios), "<br>".join(wall for _, wall in ratios),
               f"{median([t['p50'] for t in times]) / 1000:.2f}, {median([t['p99'] for t in times]) / 1000:.1f}",
               f"{median([r['broker']['resident_bytes'] for r in rounds]) / 2**20:.0f}",
               f"{100 * median([r['generator_cpu_s'] / r['seconds'] for r in rounds]):.0f} %"]
        if extra:
            figure = extra.get(name, {})
            row.append(f"{figure['receipts'] / figure['fsyncs']:.1f}" if figure.get("fsyncs") else "no fsync")
        wrong = sum(r["wrong"] for r in rounds)
        if wrong:
            row[0] += f" ({wrong} wrong)"
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def machine():
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return (f"{os.cpu_count()} cores ({cpu[1].strip() if cpu else platform.machine()}), Linux {platform.release()}, "
            f"load {os.getloadavg()[0]:.1f} before the first round")


def section(workload, found, extra, options, load):
    names = [name for name in workload.brokers if any(name == measured for measured, _ in found)]
    versions = "; ".join(brokers.ALL[name].version() for name in names)
    command = f"benches/peers/run.py --only {workload.name} --rounds {options.rounds} --duration {options.duration:g}"
    command += f" --warm-up {options.warm_up:g}"
    shown = [variant.shown() for name in names for variant in workload.variants(name)]
    common = os.path.commonprefix(shown)
    common = common[:common.rfind(" ") + 1] if len(set(shown)) > 1 else common
    rest = ", ".join(f"`{words[len(common):]}`" for words in dict.fromkeys(shown) if words != common)
    shown = f"`{common.strip()}`" + (f", and with {rest}" if rest else "")
    return (f"{table(workload, found, extra)}\n\n{datetime.date.today()}, {options.rounds} rounds of "
            f"{options.duration:g} s; {load}; {versions}.\n`{command}`; each round `tandem bench` with {shown}.\n{own(extra)}")


def own(extra):
    if "own" not in extra.get("tandem", {}):
        return ""
    return (f"By its own counters, over all rounds and without strace, tandem had {extra['tandem']['own']:.1f} receipts "
            "for each fsync.\n")


def write(name, text):
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    document = DOCUMENT.read_text()
    if begin not in document or end not in document:
        raise SystemExit(f"{DOCUMENT} has no place for {name}")
    before, rest = document.split(begin, 1)
    DOCUMENT.write_text(before + begin + text + end + rest.split(end, 1)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of workloads, with commas between them; all: "
                        + ", ".join(w.name for w in WORKLOADS))
    parser.add_argument("--peers", default=",".join(brokers.ALL), help="which, with commas between them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=5)
    parser.add_argument("--warm-up", type=float, default=2)
    parser.add_argument("--tandem", type=Path, default=brokers.Tandem.program, help="the program, of a release build")
    parser.add_argument("--no-write", action="store_true", help="print the tables only")
    options = parser.parse_args()
    brokers.Tandem.program = options.tandem.resolve()
    options.peers = options.peers.split(",")
    names = options.only.split(",") if options.only else [w.name for w in WORKLOADS]
    unknown = set(names) - {w.name for w in WORKLOADS}
    if unknown:
        parser.error(f"no such workload: {', '.join(unknown)}")
    # Ended by a signal, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for workload in WORKLOADS:
        if workload.name not in names:
            continue
        load = machine()
        with tempfile.TemporaryDirectory(prefix="tandem-peers-") as folder:
            found, extra = measure(workload, options, folder)
        text = section(workload, found, extra, options, load)
        print(f"\n## {workload.title}\n\n{text}")
        if not options.no_write:
            write(workload.name, text)


if __name__ == "__main__":
    main()
