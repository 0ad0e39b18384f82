#!/usr/bin/env python3
"""Long-polling, SockJS and WebSocket through nginx and HAProxy, as docs/fallbacks.md has them: the blocks of
configuration are taken from there. nginx buffers, as it does when nobody says otherwise; both give up after 10 s of silence.

    conformance/proxy.py [--daemon target/release/tandem] [--only nginx] [--only haproxy]

Needs nginx and haproxy (Debian: apt-get install nginx-light haproxy), each of which runs on a free port of this machine, as
nobody where this runs as root; one that is missing is skipped. Long-polling is done by Python's own HTTP, the rest by
stompjs, sockjs-client and autobahn-js in Node. Exits 1 if anything failed.
"""

import argparse
import asyncio
import http.client
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

from suite.clients import Client as Cast
from suite.clients import command
from suite.daemon import Daemon, free_port
from suite.driver import Driver, Failure, Session

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs/fallbacks.md"
SILENCE = 10  # seconds after which the proxies give up; so do docs/fallbacks.md
IDLE = 25     # seconds that nothing is said

NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{}}
http {{
   access_log off;
   client_body_temp_path {folder}/body;
   proxy_temp_path {folder}/proxy;
   fastcgi_temp_path {folder}/fastcgi;
   uwsgi_temp_path {folder}/uwsgi;
   scgi_temp_path {folder}/scgi;
   {documented}
}}
"""


def documented(kind):
    """The block of docs/fallbacks.md that is marked as of this kind."""
    found = re.search(rf"```{kind}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    if not found:
        raise Failure(f"{DOCS} has no block of {kind}")
    return found[1]


class Proxy:
    """A proxy before the broker. Its configuration listens at 80 and goes to 127.0.0.1:8080, until here."""

    def __init__(self, name, broker):
        self.name, self.port = name, free_port()
        self.program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
        self.folder = Path(tempfile.mkdtemp(prefix=f"conformance-{name}-"))
        self.config = self.folder / f"{name}.conf"
        text = documented(name).replace("127.0.0.1:8080", f"127.0.0.1:{broker}")
        if name == "nginx":
            text = NGINX.format(folder=self.folder, documented=text.replace("listen 80;", f"listen 127.0.0.1:{self.port};"))
        else:
            text = text.replace("bind :80", f"bind 127.0.0.1:{self.port}")
        self.config.write_text(text)
        self.user = None
        if os.geteuid() == 0:
            self.user = "nobody"
            shutil.chown(self.folder, self.user)

    async def start(self):
        arguments = ["-e", "stderr", "-c"] if self.name == "nginx" else ["-db", "-f"]
        self.process = await asyncio.create_subprocess_exec(self.program, *arguments, str(self.config), user=self.user)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                await asyncio.sleep(0.05)
        raise Failure(f"{self.name} does not listen after 5 s")

    async def stop(self):
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()
        shutil.rmtree(self.folder)


# ---- long-polling ---------------------------------------------------------------------------------


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
        for _ in range(8):
            if (message := self.receive()) is not None:
                return message
        raise AssertionError("nothing came")

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
    """hears 500 KB"""
    client = Client(port)
    client.join()
    client.publish("x" * 500_000)
    assert len(client.hear()[4][0]) == 500_000


def idle(port):
    """is answered with nothing before the proxy gives up, and goes on"""
    client = Client(port)
    client.join()
    for _ in range(4):
        began = time.monotonic()
        assert client.receive() is None
        assert 3 < time.monotonic() - began < SILENCE
    client.sending = client.connection()  # a proxy closes what is idle, and a browser opens another
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
        time.sleep(0.2)  # the proxy is to see it, and to tell
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


# ---- everything else -------------------------------------------------------------------------------

TRANSPORTS = ("websocket", "xhr-streaming", "eventsource", "xhr-polling")


def cast(port):
    """Who goes through the proxy, beside long-polling."""
    url = f"ws://127.0.0.1:{port}/"
    stomp = {"url": url, "version": "1.2"}
    yield Cast("stompjs", "stomp", "stompjs.mjs", "WebSocket", "1.2", stomp)
    for transport in TRANSPORTS:
        sockjs = {"url": f"http://127.0.0.1:{port}/sockjs", "transports": transport}
        yield Cast("stompjs", "stomp", "stompjs.mjs", "SockJS", transport, stomp | {"sockjs": sockjs})
    wamp = {"transport": "websocket", "url": url, "host": "127.0.0.1", "port": port, "realm": "realm1", "serializer": "json"}
    yield Cast("autobahn-js", "wamp", "autobahn.mjs", "WebSocket", "json", wamp)


class Talk:
    """A session that hears what it says, in either language."""

    def __init__(self, client, driver):
        self.session, self.stomp = Session(client, driver), client.language == "stomp"

    async def join(self):
        await self.session.connect()
        where = {"destination": f"/topic/{self.session.name}", "receipt": True} if self.stomp else {"topic": self.session.name}
        await self.session.op("subscribe", key="t", **where)

    async def hears(self, text):
        name = self.session.name
        if self.stomp:
            await self.session.op("send", destination=f"/topic/{name}", body=text, headers={"content-type": "text/plain"})
        else:
            await self.session.op("publish", topic=name, args=[text], kwargs={}, options={"exclude_me": False})
        message = await self.session.next("t", "its own message")
        got = message["body"] if self.stomp else message["args"][0]
        got = got.decode() if isinstance(got, bytes) else got
        assert got == text, f"{got[:60]!r} and not {text[:60]!r}"


async def converses(talk):
    """hears itself at once, 20 times, and 300 KB"""
    await talk.join()
    for number in range(20):
        began = time.monotonic()
        await talk.hears(f"{number} 100 % é")
        assert time.monotonic() - began < 2, "it was held back"
    await talk.hears("x" * 300_000)


async def rests(talk):
    """is silent for longer than the proxy waits, and goes on"""
    await talk.join()
    await asyncio.sleep(IDLE)
    assert talk.session.closed is None, talk.session.closed
    await talk.hears("after")


async def streams(talk):
    """hears more than one response of a stream holds"""
    await talk.join()
    for number in range(30):
        await talk.hears(f"{number}" + "x" * 10_000)


async def through(proxy, drivers, report):
    for play in (session, large, idle, vanishing, side_by_side):
        await report(proxy.name, "long-poll", play.__doc__, asyncio.to_thread(play, proxy.port))
    resting = []
    for client in cast(proxy.port):
        if client.driver not in drivers:
            line, why = command(client.driver)
            if not line:
                raise Failure(why)
            drivers[client.driver] = await Driver(line, HERE / f"reports/proxy-{client.driver}.log").start()
        for play in (converses, streams):
            talk = Talk(client, drivers[client.driver])
            await report(proxy.name, client.name, play.__doc__, play(talk))
            await talk.session.close()
        resting.append((client, Talk(client, drivers[client.driver])))
    # All at once: it takes as long as one.
    rested = [report(proxy.name, client.name, rests.__doc__, rests(talk)) for client, talk in resting]
    await asyncio.gather(*rested)
    for _, talk in resting:
        await talk.session.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--daemon", default=HERE.parent / "target/release/tandem", help="the broker to start")
    parser.add_argument("--only", action="append", choices=("nginx", "haproxy"))
    options = parser.parse_args()
    (HERE / "reports").mkdir(exist_ok=True)
    # The daemon's configuration ends in the section that this begins with.
    more = documented("toml").removeprefix("[websocket]\n")
    # Who comes through a proxy that says so is nobody of this machine.
    more += '[authentication]\nanonymous = "everywhere"\n'
    daemon = Daemon(options.daemon, HERE / "reports", "http://127.0.0.1", more, "proxy")
    counts, drivers = {"passed": 0, "FAILED": 0, "skipped": 0}, {}

    async def report(proxy, client, what, play):
        why = ""
        try:
            await play
            result = "passed"
        except Exception as trouble:  # noqa: BLE001  (whatever it is, the others go on)
            result, why = "FAILED", f"   {type(trouble).__name__}: {trouble}"
        counts[result] += 1
        print(f"{proxy:8} {client:30} {what:62} {result}{why}", flush=True)

    try:
        await daemon.start()
        for name in options.only or ("nginx", "haproxy"):
            proxy = Proxy(name, daemon.port)
            if not proxy.program:
                counts["skipped"] += 1
                print(f"{name:8} everything: skipped, there is none (apt-get install nginx-light haproxy)")
                continue
            await proxy.start()
            try:
                await through(proxy, drivers, report)
            finally:
                await proxy.stop()
    except Failure as failure:
        counts["FAILED"] += 1
        print(f"proxy.py: {failure}", file=sys.stderr, flush=True)
    for driver in drivers.values():
        await driver.stop()
    if not await daemon.stop():
        counts["FAILED"] += 1
        print(f"the broker did not end when asked (see {daemon.log})")
    else:
        counts["passed"] += 1
    print(f"\n{counts['passed']} passed, {counts['FAILED']} failed, {counts['skipped']} skipped")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
