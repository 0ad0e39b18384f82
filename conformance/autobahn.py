#!/usr/bin/env python3
"""Runs the Autobahn|Testsuite against a WebSocket echo server or, with --client, against a client that echoes.

    conformance/setup                                            once; makes .venv27
    conformance/autobahn.py target/release/examples/echo {port}  starts the server, {port} filled in
    conformance/autobahn.py --url ws://127.0.0.1:9001            a server that runs already
    conformance/autobahn.py --all ...                            all cases (20 to 30 minutes), not the 2-minute choice
    conformance/autobahn.py --cases '7.*' ...                    some; may be repeated
    conformance/autobahn.py --client target/release/examples/websocket_cases 127.0.0.1:{port}
                                                                 starts the fuzzing server, then the client

The server must echo text as text and binary as binary, take messages of 16 MiB, and offer
permessage-deflate; so must the client, which asks /getCaseCount, runs each /runCase?case=N&agent=A, and ends with
/updateReports?agent=A. Exits 1 unless every case is OK or INFORMATIONAL, in what it did and in how it closed;
exits 0, saying why, where there is no Python 2.7 for the suite. The report is a web page:
reports/autobahn/index.html, for a client reports/autobahn-client/index.html.
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
REPORTS = HERE / "reports"
GOOD = {"OK", "INFORMATIONAL"}

# For every push: framing, UTF-8, closing, limits, and of compression what takes no minutes.
SOME = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.1.*",
        *(f"12.2.{n}" for n in range(1, 10)),
        *(f"13.{section}.{n}" for section in (1, 3, 7) for n in range(1, 10))]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="all cases")
    parser.add_argument("--cases", action="append", help="only these, such as 7.* or 13.1.4; may be repeated")
    parser.add_argument("--client", action="store_true", help="the command is a client's; {port} is the fuzzing server's")
    parser.add_argument("--deadline", type=int, help="seconds; by default 900, or 5400 with --all")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="starts an echo server; {port} stands for its port")
    options = parser.parse_args()
    if options.command[:1] == ["--"]:
        del options.command[0]
    if bool(options.url) == bool(options.command):
        parser.error("give either --url or the command of an echo server")
    if options.client and options.url:
        parser.error("--client takes the command of a client")
    return options


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, port, log):
    command = [str(part).replace("{port}", str(port)) for part in command]
    if not shutil.which(command[0]):
        sys.exit(f"autobahn.py: no {command[0]}")
    with open(REPORTS / log, "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def wait_for(host, port, server):
    for _ in range(200):
        if server and server.poll() is not None:
            sys.exit(f"autobahn.py: the server ended with {server.returncode} (see the logs in reports)")
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


def spec(cases, out, **more):
    """What wstest is to do, as a file."""
    shutil.rmtree(out, ignore_errors=True)
    file = out.with_suffix(".json")
    file.write_text(json.dumps({"outdir": str(out), "cases": cases, "exclude-cases": [], "exclude-agent-cases": {},
                                **more}))
    return file


def fuzz_server(url, cases, out, deadline):
    file = spec(cases, out, servers=[{"agent": "server", "url": url}])
    with open(out.with_suffix(".log"), "wb") as log:
        # Its exit code says nothing: it is always 0.
        subprocess.run([WSTEST, "-m", "fuzzingclient", "-s", file], stdout=log, stderr=log, timeout=deadline,
                       check=False)


def fuzz_client(command, cases, out, deadline):
    """True if the client ended well; what it did is in the report."""
    port = free_port()
    file = spec(cases, out, url=f"ws://127.0.0.1:{port}")
    server = start([WSTEST, "-m", "fuzzingserver", "-s", file, "-u", "0"], port, f"{out.name}.log")
    try:
        wait_for("127.0.0.1", port, server)
        client = start(command, port, f"{out.name}-tested.log")
        try:
            client.wait(deadline)
        finally:
            stop(client)
        if client.returncode:
            print(f"the client ended with {client.returncode} (see reports/{out.name}-tested.log)")
        return client.returncode == 0
    finally:
        stop(server)


def verdict(cases, out):
    """Prints what went wrong; True if nothing did."""
    index = out / "index.json"
    if not index.exists():
        print(f"autobahn.py: wstest left no report (see reports/{out.name}.log)")
        return False
    # By agent, of which there is one.
    results = next(iter(json.loads(index.read_text()).values()), {})
    bad = {case: result for case, result in results.items() if {result["behavior"], result["behaviorClose"]} - GOOD}
    missing = [pattern for pattern in cases if not any(fnmatchcase(case, pattern) for case in results)]
    for case in sorted(bad, key=lambda case: [int(number) for number in case.split(".")]):
        result = bad[case]
        page = Path("reports", out.name, result["reportfile"]).with_suffix(".html")
        print(f"{case:10} {result['behavior']:16} closing {result['behaviorClose']:16} {page}")
    for pattern in missing:
        print(f"{pattern:10} did not run (see reports/{out.name}.log)")
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
    REPORTS.mkdir(exist_ok=True)
    cases = ["*"] if options.all else options.cases or SOME
    deadline = options.deadline or (5400 if options.all else 900)
    out = REPORTS / ("autobahn-client" if options.client else "autobahn")
    began = time.monotonic()
    server = None
    try:
        if options.client:
            alive = fuzz_client(options.command, cases, out, deadline)
        else:
            url = options.url
            if options.command:
                port = free_port()
                server = start(options.command, port, f"{out.name}-tested.log")
                url = f"ws://127.0.0.1:{port}"
            address = urlsplit(url)
            wait_for(address.hostname, address.port or 80, server)
            fuzz_server(url, cases, out, deadline)
            alive = server is None or server.poll() is None
            if not alive:
                print(f"the server ended meanwhile, with {server.returncode} (see reports/{out.name}-tested.log)")
        print(f"{shlex.join(options.command) or options.url}: {time.monotonic() - began:.0f} s")
        return 0 if verdict(cases, out) and alive else 1
    except subprocess.TimeoutExpired as late:
        print(f"autobahn.py: not done after {late.timeout:.0f} s")
        return 1
    finally:
        if server:
            stop(server)


if __name__ == "__main__":
    sys.exit(main())
