"""Runs a workload, in rounds, against the brokers that it names, and gives what is kept of it."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import brokers
import start
from brokers import Failed, Unavailable
from results import significant
from workloads import STARTS, TITLES

# The load of others that spoils figures: the load average before the first workload, and cores that are busy while
# nothing of ours runs.
LOAD_MAX = 0.7
BUSY_MAX = 0.25

# A broker is at rest when it uses less than this part of a core; it may take so long to come to rest.
REST_SHARE = 0.2
REST_S = 20

# What connecting, patterns and the end of a run may take beyond what is measured.
RUN_S = 100


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def busy_cores(seconds=1.0):
    """How many cores are busy, with whatever."""
    def look():
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4]
    before, begun = look(), time.monotonic()
    time.sleep(seconds)
    return (look() - before) / 100 / (time.monotonic() - begun)


def machine():
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores ({cpu[1].strip() if cpu else platform.machine()}), Linux {platform.release()}"


class Course:
    """One workload while it runs."""

    def __init__(self, workload, options, folder):
        self.workload, self.options, self.folder = workload, options, folder
        # By where a variant runs: brokers that run from the first round to the last.
        self.running = {}
        self.kept = {}
        # Of brokers that never came up.
        self.missing = {}

    def run(self):
        options, workload = self.options, self.workload
        self.duration = options.duration * workload.duration_factor
        rounds = min(options.rounds, workload.rounds_max)
        wanted = [variant for variant in workload.variants if variant.broker in options.peers]
        self.start_all(wanted)
        if "tandem" in self.missing:
            raise Failed(f"tandem: {self.missing['tandem']}")
        wanted = [variant for variant in wanted if variant.broker not in self.missing]
        self.kept = {variant.key: {"broker": variant.broker, "words": variant.words, "failures": [], "rounds": []}
                     for variant in wanted}
        # The figures of an idle connection, and of a start, need none before.
        first = 0 if workload.rounds_max > 5 else 1
        for number in range(first, rounds + 1):
            # Whoever comes first after the others' work should not always be the same.
            turn = number % max(1, len(wanted))
            for variant in wanted[turn:] + wanted[:turn]:
                self.take_turn(variant, number, rounds)
        if workload.persistent:
            self.count_fsyncs(wanted)

    def start_all(self, wanted):
        for variant in wanted:
            place = variant.place or variant.broker
            if variant.how != "bench" or place in self.running or variant.broker in self.missing:
                continue
            kind = brokers.ALL[variant.broker]
            try:
                kind.version()
                self.running[place] = broker = kind(self.folder, self.workload.persistent, variant.config)
                broker.launch()
            except (Unavailable, Failed, OSError) as what:
                self.leave_out(variant.broker, what)
        # They come up side by side.
        for place, broker in list(self.running.items()):
            try:
                broker.wait_until_it_listens()
            except Failed as what:
                self.leave_out(broker.name, what)

    def leave_out(self, name, why):
        say(f"{name} is left out: {why}")
        self.missing[name] = str(why)
        for place in [place for place, broker in self.running.items() if broker.name == name]:
            self.running.pop(place).stop()

    def take_turn(self, variant, number, rounds):
        """One run. Whatever fails in it costs no more than this run."""
        entry, found = self.kept[variant.key], None
        try:
            found = {"bench": self.bench, "idle": self.idle, "start": self.start}[variant.how](
                variant, is_first=number == 0)
        except (Failed, Unavailable, OSError, ValueError, subprocess.SubprocessError) as what:
            entry["failures"].append(f"round {number}: {str(what)[:300]}")
            say(f"{self.workload.name} {number}/{rounds} {variant.key} FAILED: {what}")
        if number > 0:
            entry["rounds"] += found if isinstance(found, list) else [found]
        for one in found if isinstance(found, list) else [found] if found else []:
            shown = [f"{name} {one[name]:,.6g}" for name in ("rate", "per_cpu", "p99", "bytes", "start_ms") if name in one]
            wrong = f"; {one['wrong']} WRONG {one['wrong_examples']}" if one.get("wrong") else ""
            say(f"{self.workload.name} {number}/{rounds} {variant.key}: {', '.join(shown)}{wrong}")

    def broker_of(self, variant):
        """The one that is loaded, which is started again if it is gone."""
        place = variant.place or variant.broker
        broker = self.running.get(place)
        if broker is None:
            raise Failed(f"it was left out: {self.missing.get(variant.broker)}")
        if not broker.is_alive():
            say(f"{place} is gone ({broker.last_words()}): started again")
            self.kept[variant.key]["failures"].append("it was gone, and was started again")
            broker.stop()
            self.running[place] = broker = type(broker)(self.folder, self.workload.persistent, variant.config)
            try:
                broker.start()
            except Failed as what:
                # Once more in each round would take longer than all the others.
                self.leave_out(variant.broker, what)
                raise
        return broker

    def bench(self, variant, is_first=False):
        broker = self.broker_of(variant)
        self.wait_for_rest()
        is_short = is_first and not self.workload.has_long_first_round
        before = broker.metrics()
        found = self.generate(variant, broker, *((0, 1) if is_short else (self.options.warm_up, self.duration)))
        after = broker.metrics()
        published = after.get("tandem_publications_total", 0) - before.get("tandem_publications_total", 0)
        if "--compress" in variant.words.split() and published:
            compressed = after["tandem_compressions_total"] - before["tandem_compressions_total"]
            found["compressions"] = significant(compressed / published)
        return found

    def wait_for_rest(self):
        """What somebody has still to do for an earlier run is not to be in the next one."""
        ends = time.monotonic() + REST_S
        while time.monotonic() < ends:
            then, begun = {broker: broker.cpu_s() for broker in self.running.values()}, time.monotonic()
            time.sleep(0.1)
            passed = time.monotonic() - begun
            if all(broker.cpu_s() - cpu_s < REST_SHARE * passed for broker, cpu_s in then.items()):
                return

    def generate(self, variant, broker, warm_up, duration):
        """One run of the load generator; what is kept of what it found."""
        command = [brokers.Tandem.program, "bench", *variant.words.split(), "--url", broker.urls[variant.scheme],
                   *broker.login, "--json", "--warm-up", warm_up, "--duration", duration]
        for pid in broker.pids():
            command += ["--server-pid", pid]
        command = [str(word) for word in command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=warm_up + duration + RUN_S)
        if not done.stdout:
            raise Failed(done.stderr.strip() or f"tandem bench ended with {done.returncode}")
        return summed_up(json.loads(done.stdout))

    def fresh(self, kind, variant):
        """A broker just started, which is ended by the caller."""
        broker = kind(self.folder, False, variant.config)
        try:
            broker.start()
        except BaseException:
            broker.stop()
            raise
        return broker

    def idle(self, variant, **_):
        broker = self.fresh(brokers.TandemOverTls if variant.scheme == "wss" else brokers.Tandem, variant)
        try:
            return self.generate(variant, broker, 0, 1)
        finally:
            broker.stop()

    def start(self, variant, **_):
        """Several starts; each is what a round is elsewhere. The first finds the program on disk, and does not count."""
        found = []
        for _ in range(STARTS + 1):
            port = brokers.free_port()
            command = [str(brokers.Tandem.program), *variant.words.split(), "--listen", f"127.0.0.1:{port}", "--log", "warn"]
            took, resident = start.until_published(command, port)
            found.append({"start_ms": significant(took * 1000), "mib": significant(resident / 2**20), "wrong": 0})
        return found[1:]

    def count_fsyncs(self, wanted):
        """Before strace slows it down, tandem's own counters say how many receipts an fsync had: a commit is two."""
        try:
            counted = self.running["tandem"].metrics()
            commits = counted.get("tandem_store_commits_total", 0)
            if commits:
                own = significant(counted["tandem_store_waiters_total"] / commits / 2)
                for one in self.kept["tandem"]["rounds"]:
                    if one:
                        one["receipts_per_fsync"] = own
        except (KeyError, OSError) as what:
            say(f"{self.workload.name}: no counters of tandem: {what}")
        for variant in wanted:
            try:
                delivered, calls = self.under_strace(variant)
                self.kept[variant.key]["messages_per_fsync"] = significant(delivered / calls) if calls else None
                say(f"{self.workload.name} {variant.key}: {delivered} messages, {calls} fsyncs")
            except (Failed, OSError, ValueError, subprocess.SubprocessError) as what:
                say(f"{self.workload.name} {variant.key}: fsyncs are not counted: {what}")

    def under_strace(self, variant):
        broker = self.broker_of(variant)
        counted = broker.folder / "strace"
        pids = [word for pid in broker.pids() for word in ("-p", str(pid))]
        trace = subprocess.Popen(["strace", "-f", "-qq", "-c", "-o", counted, "-e", "trace=fsync,fdatasync", *pids],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            found = self.generate(variant, broker, self.options.warm_up, self.duration)
        finally:
            trace.send_signal(signal.SIGINT)
            trace.wait(30)
        rows = [line.split() for line in counted.read_text().splitlines()]
        return found["delivered"], sum(int(row[3]) for row in rows if row and row[-1] in ("fsync", "fdatasync"))

    def stop(self):
        for broker in self.running.values():
            broker.stop()


def summed_up(found):
    """What is kept of a report of the load generator."""
    broker = found.get("broker") or {}
    times = found.get("receipt_us") or found.get("delivery_us") or {}
    kept = {
        "rate": found.get("deliveries_per_second"),
        "per_cpu": broker.get("deliveries_per_cpu_second"),
        "cpu_s": broker.get("cpu_s"),
        **{name: times.get(name) for name in ("p50", "p90", "p99", "p99_9")},
        "mib": broker.get("resident_bytes", 0) / 2**20,
        "generator": found["generator_cpu_s"] / found["seconds"] if found.get("seconds") else None,
        "bytes": found.get("bytes_per_connection"),
        "delivered": found.get("delivered_in_all"),
        "wrong": found["wrong"],
    }
    if kept["bytes"] is not None:
        # Nothing was delivered, nor was it to be.
        kept = {name: kept[name] for name in ("bytes", "mib", "wrong")}
    if found["wrong"]:
        kept["wrong_examples"] = found["wrong_examples"][:3]
    return {name: significant(value) for name, value in kept.items() if value is not None}


def estimate_s(workload, options):
    """How long a workload takes, about."""
    runs = len([variant for variant in workload.variants if variant.broker in options.peers])
    if workload.rounds_max <= 5:
        return workload.extra_s + min(options.rounds, workload.rounds_max) * runs * workload.run_extra_s
    each = options.warm_up + options.duration * workload.duration_factor
    first = each if workload.has_long_first_round else 1
    # Under strace they run once more.
    rounds = options.rounds + workload.persistent
    return workload.extra_s + runs * (rounds * each + first + (rounds + 1) * workload.run_extra_s)


def measure(workload, options, is_first):
    """Runs it, and gives what is to be kept."""
    load, busy, begun = os.getloadavg()[0], busy_cores(), time.monotonic()
    is_noisy = busy > BUSY_MAX or (is_first and load > LOAD_MAX)
    if is_noisy:
        say(f"WARNING: load {load:.1f} and {busy:.2f} cores busy before {workload.name}: others are at work, and figures of "
            "time say little")
    with tempfile.TemporaryDirectory(prefix="tandem-peers-", ignore_cleanup_errors=True) as folder:
        course = Course(workload, options, folder)
        try:
            course.run()
        finally:
            course.stop()
    used = dict.fromkeys(variant.broker for variant in workload.variants if variant.key in course.kept)
    command = f"benches/peers/run.py --only {workload.name} --rounds {options.rounds} --duration {options.duration:g}"
    return {
        "workload": workload.name, "date": date.today().isoformat(), "machine": machine(), "load": round(load, 2),
        "busy_cores": round(busy, 2), "is_first": is_first, "is_noisy": is_noisy, "rounds": min(options.rounds, workload.rounds_max),
        "duration_s": options.duration * workload.duration_factor, "warm_up_s": options.warm_up, "took_s": round(time.monotonic() - begun),
        "command": f"{command} --warm-up {options.warm_up:g}",
        "versions": {name: brokers.ALL[name].version() for name in used},
        "left_out": {TITLES[name]: why for name, why in course.missing.items()},
        "variants": course.kept,
    }
