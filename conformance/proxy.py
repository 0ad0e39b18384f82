#!/usr/bin/env python3
"""Long-polling through nginx as it comes: HTTP/1.0 to the broker, buffering on, a read timeout of 30 s.

    conformance/proxy.py [--daemon target/release/tandem]

Needs nginx (Debian: apt-get install nginx-light), which runs on a free port of this machine, as nobody where this
runs as root. Nothing is used for HTTP but Python's own client. Exits 1 if anything failed.
"""

import argparse
import asyncio
import http.client
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

from suite.daemon import Daemon, free_port
from suite.driver import Failure

HERE = Path(__file__).resolve().parent

NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
   access_log off;
   client_body_temp_path {folder}/body;
   proxy_temp_path {folder}/proxy;
   fastcgi_temp_path {folder}/fastcgi;
   uwsgi_temp_path {folder}/uwsgi;
   scgi_temp_path {folder}/scgi;
   server {{
      listen 127.0.0.1:{port};
      location / {{
         proxy_pass http://127.0.0.1:{broker};
         proxy_read_timeout 30s;
         proxy_set_header Host $http_host;
      }}
   }}
}}
"""


class Nginx:
    def __init__(self, broker):
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="conformance-nginx-"))
        self.config = self.folder / "nginx.conf"
        self.config.write_text(NGINX.format(folder=self.folder, port=self.port, broker=broker))
        self.user = None
        if os.geteuid() == 0:
            self.user = "nobody"
            shutil.chown(self.folder, self.user)

    async def start(self):
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not program:
            raise Failure("no nginx: apt-get install nginx-light")
        self.process = await asyncio.create_subprocess_exec(
            program, "-e", "stderr", "-c", str(self.config), user=self.user)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                await asyncio.sleep(0.05)
        raise Failure("nginx does not listen after 5 s")

    async def stop(self):
        self.process.terminate()
        await self.process.wait()
        shutil.rmtree(self.folder)


class Client:
    """A WAMP session by long-polling. Each kind of request has a connection of its own, as a browser's would."""

    def __init__(self, port):
        self.port = port
        self.sending, self.receiving = self.connection(), self.connection()
        opened = json.loads(self.ask(self.sending, "/lp/open", {"protocols": ["wamp.2.json"]})[1])
        self.path = f"/lp/{opened['transport']}"

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)

    def ask(self, connection, path, body=None):
        connection.request("POST", path, body=None if body is None else json.dumps(body),
                           headers={"Content-Type": "application/json", "Content-Length": "0"} if body is None
                           else {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def say(self, message):
        status, body = self.ask(self.sending, f"{self.path}/send", message)
        assert status == 204, (status, body)

    def receive(self):
        status, body = self.ask(self.receiving, f"{self.path}/receive")
        assert status in (200, 204), (status, body)
        return json.loads(body) if body else None

    def hear(self):
        while (message := self.receive()) is None:
            pass
        return message

    def join(self):
        self.say([1, "realm1", {"roles": {"publisher": {}, "subscriber": {}}}])
        assert self.hear()[0] == 2
        self.say([32, 1, {}, "proxy.topic"])
        assert self.hear()[0] == 33

    def publish(self, value):
        self.say([16, int(time.monotonic() * 1e6), {"exclude_me": False}, "proxy.topic", [value]])


def session(port):
    """joins, subscribes, publishes and hears itself, at once"""
    client = Client(port)
    client.join()
    for number in range(20):
        began = time.monotonic()
        client.publish(number)
        assert client.hear()[4] == [number]
        assert time.monotonic() - began < 2, "it was held back"
    status, _ = client.ask(client.sending, f"{client.path}/close")
    assert status == 204, status
    status, _ = client.ask(client.receiving, f"{client.path}/receive")
    assert status == 404, status


def large(port):
    """hears 500 KB, which nginx buffers"""
    client = Client(port)
    client.join()
    client.publish("x" * 500_000)
    assert len(client.hear()[4][0]) == 500_000


def idle(port):
    """is answered with nothing before nginx gives up, and goes on"""
    client = Client(port)
    client.join()
    for _ in range(4):
        began = time.monotonic()
        assert client.receive() is None
        assert 5 < time.monotonic() - began < 30
    client.publish("after")
    assert client.hear()[4] == ["after"]


def vanishing(port):
    """goes away while it waits, and loses nothing"""
    client = Client(port)
    client.join()
    for number in range(10):
        gone = client.connection()
        gone.request("POST", f"{client.path}/receive", headers={"Content-Length": "0"})
        time.sleep(0.2)
        gone.close()
        time.sleep(0.2)  # nginx is to see it, and to tell
        client.publish(number)
        assert client.hear()[4] == [number]


def side_by_side(port):
    """twenty sessions at once, each hears all of them"""
    clients = [Client(port) for _ in range(20)]
    for client in clients:
        client.join()
    for number, client in enumerate(clients):
        client.publish(number)
    for client in clients:
        assert [client.hear()[4][0] for _ in clients] == list(range(20))


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--daemon", default=HERE.parent / "target/release/tandem", help="the broker to start")
    options = parser.parse_args()
    (HERE / "reports").mkdir(exist_ok=True)
    daemon = Daemon(options.daemon, HERE / "reports", "http://127.0.0.1")
    failed = 0
    try:
        await daemon.start()
        nginx = Nginx(daemon.port)
        await nginx.start()
    except Failure as failure:
        await daemon.stop()
        print(f"proxy.py: {failure}", file=sys.stderr)
        return 1
    scenarios = (session, large, idle, vanishing, side_by_side)
    try:
        for play in scenarios:
            try:
                await asyncio.to_thread(play, nginx.port)
                result = "passed"
            except Exception as trouble:  # noqa: BLE001  (whatever it is, the others go on)
                failed += 1
                result = f"FAILED   {type(trouble).__name__}: {trouble}"
            print(f"{play.__doc__:66} {result}", flush=True)
    finally:
        await nginx.stop()
        ended = await daemon.stop()
    if not ended:
        failed += 1
        print(f"the broker did not end when asked (see {daemon.log})")
    print(f"\n{len(scenarios) + 1 - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
