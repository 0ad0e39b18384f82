#!/usr/bin/env python3
"""Runs the Autobahn|Testsuite (as fuzzing client) against a WebSocket echo server.

    conformance/setup                                            once; makes .venv27
    conformance/autobahn.py target/release/examples/echo {port}  starts the server, {port} filled in
    conformance/autobahn.py --url ws://127.0.0.1:9001            a server that runs already
    conformance/autobahn.py --all ...                            all cases (20 to 30 minutes), not the 2-minute choice
    conformance/autobahn.py --cases '7.*' ...                    some; may be repeated

The server must echo text as text and binary as binary, take messages of 16 MiB, and offer
permessage-deflate. Exits 1 unless every case is OK or INFORMATIONAL, in what it did and in how it closed;
exits 0, saying why, where there is no Python 2.7 for the suite. The report is a web page:
reports/autobahn/index.html.
"""

import argparse
import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
WSTEST = HERE / ".venv27/bin/wstest"
OUT = HERE / "reports/autobahn"
GOOD = {"OK", "INFORMATIONAL"}

# For every push: framing, UTF-8, closing, limits, and of compression what takes no minutes.
SOME = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.1.*",
        *(f"12.2.{n}" for n in range(1, 10)),
        *(f"13.{section}.{n}" for section in (1, 3, 7) for n in range(1, 10))]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="all cases")
    parser.add_argument("--cases", action="append", help="only these, such as 7.* or 13.1.4; may be repeated")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="starts an echo server; {port} stands for its port")
    options = parser.parse_args()
    if options.command[:1] == ["--"]:
        del options.command[0]
    if bool(options.url) == bool(options.command):
        parser.error("give either --url or the command of an echo server")
    return options


def start(command):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [part.replace("{port}", str(port)) for part in command]
    if not shutil.which(command[0]):
        sys.exit(f"autobahn.py: no {command[0]}")
    with open(OUT.parent / "autobahn-server.log", "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log), port


def wait_for(host, port, server):
    for _ in range(200):
        if server and server.poll() is not None:
            sys.exit(f"autobahn.py: the server ended with {server.returncode} (see reports/autobahn-server.log)")
        try:
            socket.create_connection((host, port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"autobahn.py: nothing listens on {host}:{port} after 10 s")


def stop(server):
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def wstest(url, cases, deadline):
    shutil.rmtree(OUT, ignore_errors=True)
    spec = OUT.parent / "autobahn.json"
    spec.write_text(json.dumps({"outdir": str(OUT), "servers": [{"agent": "server", "url": url}], "cases": cases,
                                "exclude-cases": [], "exclude-agent-cases": {}}))
    with open(OUT.parent / "autobahn.log", "wb") as log:
        # Its exit code says nothing: it is always 0.
        subprocess.run([WSTEST, "-m", "fuzzingclient", "-s", spec], stdout=log, stderr=log, timeout=deadline,
                       check=False)


def verdict(cases):
    """Prints what went wrong; True if nothing did."""
    index = OUT / "index.json"
    if not index.exists():
        print("autobahn.py: wstest left no report (see reports/autobahn.log)")
        return False
    results = json.loads(index.read_text()).get("server", {})
    bad = {case: result for case, result in results.items() if {result["behavior"], result["behaviorClose"]} - GOOD}
    missing = [pattern for pattern in cases if not any(fnmatchcase(case, pattern) for case in results)]
    for case in sorted(bad, key=lambda case: [int(number) for number in case.split(".")]):
        result = bad[case]
        page = Path("reports/autobahn", result["reportfile"]).with_suffix(".html")
        print(f"{case:10} {result['behavior']:16} closing {result['behaviorClose']:16} {page}")
    for pattern in missing:
        print(f"{pattern:10} did not run (see reports/autobahn.log)")
    behaviors = Counter(result["behavior"] for result in results.values())
    print(", ".join(f"{count} {behavior}" for behavior, count in behaviors.most_common()))
    print(f"{len(results) - len(bad)} passed, {len(bad) + len(missing)} failed, 0 skipped")
    return not bad and not missing


def main():
    options = arguments()
    if not WSTEST.exists():
        print("autobahn.py: the Autobahn|Testsuite is Python 2 code, and there is no .venv27 for it: conformance/setup\n"
              "makes one where it finds a Python 2.7\n0 passed, 0 failed, 1 skipped")
        return 0
    OUT.parent.mkdir(exist_ok=True)
    cases = ["*"] if options.all else options.cases or SOME
    server = None
    try:
        if options.command:
            server, port = start(options.command)
            url = f"ws://127.0.0.1:{port}"
        else:
            url = options.url
        address = urlsplit(url)
        wait_for(address.hostname, address.port or 80, server)
        began = time.monotonic()
        wstest(url, cases, 5400 if options.all else 900)
        print(f"{shlex.join(options.command) or url}: {time.monotonic() - began:.0f} s")
        alive = server is None or server.poll() is None
        if not alive:
            print(f"the server ended meanwhile, with {server.returncode} (see reports/autobahn-server.log)")
        return 0 if verdict(cases) and alive else 1
    except subprocess.TimeoutExpired as late:
        print(f"autobahn.py: wstest is not done after {late.timeout:.0f} s")
        return 1
    finally:
        if server:
            stop(server)


if __name__ == "__main__":
    sys.exit(main())
