#!/usr/bin/env python3
"""Runs other people's WAMP and STOMP clients against a running broker; prints one table.

    conformance/setup                           once
    conformance/run.py                          against target/release/tandem, on a free port
    conformance/run.py --url ws://127.0.0.1:8080/   against a broker that runs already
    conformance/run.py --client wampy --only wamp   one library, one part

Exits 1 if anything failed. See README.md.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from suite import login, stomp, wamp, websocket  # noqa: F401  (they register their scenarios)
from suite.clients import Target, command, everybody
from suite.cross import Cross
from suite.daemon import Daemon, free_port
from suite.driver import Driver, Failure, Refused
from suite.report import FAILED, PASSED, SKIPPED, Report, Row
from suite.scenario import SCENARIOS, Stage, play

HERE = Path(__file__).resolve().parent
PARTS = ("wamp", "stomp", "websocket", "login", "cross")


def arguments():
    def address(text):
        host, _, port = text.rpartition(":")
        return host, int(port)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--daemon", default=HERE.parent / "target/release/tandem", help="the broker to start")
    parser.add_argument("--url", help="a broker that runs already; starts none")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--client", action="append", help="only clients whose name has this in it; may be repeated")
    parser.add_argument("--scenario", help="only scenarios whose title has this in it")
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--list", action="store_true", help="names the clients and scenarios")
    parser.add_argument("--unix", metavar="PATH", help="its Unix socket too")
    apart = parser.add_argument_group("for brokers that need more than one address")
    apart.add_argument("--wamp-url")
    apart.add_argument("--stomp-url")
    apart.add_argument("--rawsocket", type=address, metavar="HOST:PORT")
    apart.add_argument("--stomp-tcp", type=address, metavar="HOST:PORT")
    apart.add_argument("--login", help="STOMP login")
    apart.add_argument("--passcode", help="STOMP passcode")
    options = parser.parse_args()
    # Two brokers that stand in for one carry no message from one language to the other.
    options.bridged = not (options.wamp_url or options.stomp_url)
    options.parts = options.only or PARTS
    options.logins = lambda client: (
        {"login": options.login, "passcode": options.passcode} if client.language == "stomp" and options.login else {})
    return options


class Run:
    def __init__(self, options, report, page_port):
        self.options, self.report, self.page_port = options, report, page_port
        self.drivers = {}  # program -> Driver, or why there is none

    def cast(self):
        for client in everybody(self.options.target):
            wanted = self.options.client
            if client.driver == "browser.mjs" and self.options.no_browser:
                continue
            if not wanted or any(part in client.name for part in wanted):
                yield client

    async def driver(self, client):
        """The client's process: started when first needed, and again after it died."""
        have = self.drivers.get(client.driver)
        if isinstance(have, str) or (have and have.alive):
            return have
        line, why = command(client.driver)
        if line is None:
            self.drivers[client.driver] = why
            return why
        if client.driver == "browser.mjs":
            line = line + [str(self.page_port)]
        started = Driver(line, HERE / "reports" / f"{client.driver}.log")
        try:
            self.drivers[client.driver] = await started.start()
        except Failure as failure:
            await started.stop()
            self.drivers[client.driver] = f"its process does not start: {failure}"
            self.report.add(Row.of(client, None, "starts", FAILED, str(failure)))
        return self.drivers[client.driver]

    async def login(self):
        """Every WAMP client logs in, at a broker that knows users, and an application that knows others."""
        if self.options.url or not self.options.bridged:
            return  # Who may log in to a broker that runs already is not known here.
        more = await login.config(self.options.daemon, HERE / "reports")
        daemon = Daemon(self.options.daemon, HERE / "reports", f"http://127.0.0.1:{self.page_port}", more, "login")
        before, stage = self.options.target, None
        try:
            await daemon.start()
            self.options.target = Target.of(daemon.url)
            application = next(client for client in everybody(self.options.target) if client.driver == "autobahn_py.py")
            driver = await self.driver(application)
            if not isinstance(driver, str):
                stage = Stage(application, driver, self.options)
                session = await stage.connect(login={"method": "ticket", "authid": "alice", "secret": login.PASSWORD})
                await session.op("register", key="a", procedure=login.AUTHENTICATE, behaviour="authenticate")
            await self.alone("wamp", "login")
            await self.alone("stomp", "stomp-login")
        finally:
            if stage:
                await stage.clear()
            self.options.target = before
            await daemon.stop()

    async def alone(self, language, played=None):
        for client in self.cast():
            if client.language != language or played and client.driver == "browser.mjs":
                continue
            for scenario in SCENARIOS:
                if scenario.language != (played or language):
                    continue
                if self.options.scenario and self.options.scenario not in scenario.title:
                    continue
                driver = await self.driver(client)
                if isinstance(driver, str):
                    self.report.add(Row.of(client, None, "everything", SKIPPED, driver))
                    break
                self.report.add(await play(scenario, client, driver, self.options))

    async def cross(self):
        casts = []
        for client in self.cast():
            if client.language == "websocket" or not client.meets:
                continue
            driver = await self.driver(client)
            if isinstance(driver, str):
                self.report.add(Row.of(client, None, "the matrix", SKIPPED, driver))
            else:
                casts.append((client, driver))
        if len(casts) > 1:
            await Cross(casts, self.options, self.report).run()

    async def screenshot(self):
        browser = self.drivers.get("browser.mjs")
        if isinstance(browser, Driver) and browser.alive:
            try:
                await browser.request("screenshot", deadline=30, path=str(HERE / "reports/browser.png"))
            except Failure as failure:
                print(f"no screenshot: {failure}", file=sys.stderr)

    async def all(self):
        try:
            for part in self.options.parts:
                whole = {"cross": self.cross, "login": self.login}.get(part)
                await (whole() if whole else self.alone(part))
            await self.screenshot()
        finally:
            for driver in self.drivers.values():
                if isinstance(driver, Driver):
                    await driver.stop()


async def main():
    options = arguments()
    (HERE / "reports").mkdir(exist_ok=True)
    for old in (HERE / "reports").glob("*.log"):
        old.unlink()
    if options.list:
        options.target = Target.of("ws://127.0.0.1:8080/", unix="socket")
        for client in everybody(options.target):
            print(f"{client.language:10} {client.name}")
        for scenario in SCENARIOS:
            print(f"{scenario.language:10} {scenario.title}")
        return 0

    page_port, daemon, url, unix = free_port(), None, options.url, options.unix
    try:
        if url is None and options.bridged:
            daemon = Daemon(options.daemon, HERE / "reports", f"http://127.0.0.1:{page_port}")
            await daemon.start()
            url, unix = daemon.url, daemon.unix
        options.target = Target.of(url or options.wamp_url or options.stomp_url, options.wamp_url, options.stomp_url,
                                   options.rawsocket, options.stomp_tcp, unix)
    except Failure as failure:
        if daemon:
            await daemon.stop()
        print(f"run.py: {failure}", file=sys.stderr)
        return 1

    report = Report()
    try:
        await Run(options, report, page_port).all()
    finally:
        if daemon:
            ended = await daemon.stop()
            report.add(Row("the broker", "-", "-", "-", "lives to the end, and ends when asked",
                           PASSED if ended else FAILED, "" if ended else f"see {daemon.log}"))
    return 0 if report.finish() else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
