#!/usr/bin/env python3
"""Runs the same workloads against tandem and its peers, in turn, several rounds, and writes the tables and plots of
docs/performance.md.

    benches/peers/setup                                  # installs the peers
    cargo build --release
    cargo build --release -p tandem-bench --example limit_server
    benches/peers/run.py                                 # everything; about half an hour
    benches/peers/run.py --only queue-persistent         # one workload
    benches/peers/run.py --only queue-persistent --rounds 1 --duration 2 --no-write
    benches/peers/run.py --render                        # runs nothing: the document anew from results/

Each broker of a workload runs from the first round to the last, so that what compiles itself while it runs has done
so; in each round each is loaded in turn, and idle otherwise. A round that is not counted comes first. What is
compared are the ratios of each round, of which the median is shown, with the smallest and largest.

What a workload found is kept in results/ when it ends: a run that is cut short has lost only the rest."""

import argparse
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import brokers
import document
import results
from measure import estimate_s, measure, say
from workloads import WORKLOADS

PLOTTER = Path(__file__).resolve().parent / ".venv-plots/bin/python"


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of workloads, with commas between them; all: "
                        + ", ".join(w.name for w in WORKLOADS))
    parser.add_argument("--peers", default=",".join(brokers.ALL), help="which, with commas between them; always tandem")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=3, help="seconds of each run that are measured")
    parser.add_argument("--warm-up", type=float, default=1, help="seconds before that")
    parser.add_argument("--tandem", type=Path, default=brokers.Tandem.program, help="the program, of a release build")
    parser.add_argument("--limit-server", type=Path, default=brokers.Limit.program)
    parser.add_argument("--no-write", action="store_true", help="print the tables, and keep nothing")
    parser.add_argument("--render", action="store_true", help="run nothing, and write document and plots anew")
    options = parser.parse_args(arguments)
    options.peers = {*options.peers.split(","), "tandem"}
    names = options.only.split(",") if options.only else [w.name for w in WORKLOADS]
    if unknown := set(names) - {w.name for w in WORKLOADS}:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    if unknown := options.peers - set(brokers.ALL):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    if options.rounds < 1:
        parser.error("at least one round")
    options.workloads = [workload for workload in WORKLOADS if workload.name in names]
    return options


def render():
    document.write(results.load_all())
    if not PLOTTER.exists():
        say(f"no {PLOTTER}: plots stay as they are; benches/peers/setup installs what draws them")
        return
    subprocess.run([str(PLOTTER), str(Path(__file__).resolve().parent / "plots.py")], check=True)


def allow_files():
    """As many files as a process here may have: idle connections are one each, at both ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main():
    options = options_of(None)
    if options.render:
        render()
        return
    brokers.Tandem.program, brokers.Limit.program = options.tandem.resolve(), options.limit_server.resolve()
    if not brokers.Tandem.program.exists():
        raise SystemExit(f"no {brokers.Tandem.program}: cargo build --release")
    allow_files()
    # Ended by a signal, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begun, failed = time.monotonic(), []
    for number, workload in enumerate(options.workloads):
        left = sum(estimate_s(other, options) for other in options.workloads[number:])
        say(f"== {workload.name}; what is left takes about {left / 60:.0f} minutes")
        try:
            kept = measure(workload, options, is_first=number == 0)
        except Exception:
            # Nothing of one workload costs the others their figures.
            failed.append(workload.name)
            say(f"{workload.name} FAILED:\n{traceback.format_exc()}")
            continue
        if not options.no_write:
            results.keep(workload.name, kept)
        print(f"\n## {workload.title}\n\n{document.section(results.Results(workload, kept))}", flush=True)
    say(f"took {(time.monotonic() - begun) / 60:.1f} minutes")
    if not options.no_write:
        render()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
