#!/usr/bin/env python3
"""Our STOMP client against the brokers of others: RabbitMQ (TCP and WebSocket) and ActiveMQ, as Debian ships them.

    benches/peers/setup        installs them; quick when they are there
    conformance/client.py      starts each, runs tests/tests/client_peers.rs against it, and ends it

What is not installed is left out, and said so.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "benches" / "peers"))

import brokers  # noqa: E402  (its folder is put in the path above)


def main():
    failed = 0
    for kind in (brokers.RabbitMQ, brokers.ActiveMQ):
        try:
            print(kind.version(), flush=True)
        except brokers.Unavailable as missing:
            print(f"{kind.title}: left out, no {missing}", flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="tandem-client-") as folder:
            broker = kind(folder)
            try:
                broker.launch()
                broker.wait_until_it_listens()
                urls = [broker.urls[way] for way in ("stomp", "ws") if way in broker.urls]
                environment = {**os.environ, "TANDEM_STOMP_PEERS": " ".join(urls)}
                command = ["cargo", "test", "--quiet", "-p", "tandem-tests", "--test", "client_peers",
                           "--", "--ignored", "--test-threads", "1", *sys.argv[1:]]
                failed += subprocess.run(command, cwd=HERE.parent, env=environment).returncode != 0
            finally:
                broker.stop()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
