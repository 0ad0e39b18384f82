"""A driver is a process that speaks the line protocol for one client library; it holds many sessions.

Every wait here has a deadline, and everything that goes wrong is a `Failure` that says what was awaited.
"""

import asyncio
import itertools
import json
from collections import defaultdict, deque

from .values import pack, unpack

DEADLINE = 8.0  # seconds; the longest anything may take that should take milliseconds


class Failure(Exception):
    """A step went wrong; the text says what."""


class Refused(Failure):
    """The broker, or the library, answered an operation with an error."""

    def __init__(self, op, error):
        self.uri = error.get("uri")
        self.args_, self.kwargs = unpack(error.get("args") or []), unpack(error.get("kwargs") or {})
        super().__init__(f"{op}: {error.get('message')}")


class Driver:
    def __init__(self, command, log):
        self.command, self.log = command, log
        self.process, self.about = None, {}
        self.numbers, self.answers, self.sessions = itertools.count(1), {}, {}

    async def start(self):
        with open(self.log, "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                limit=64 << 20)
        self.reading = asyncio.create_task(self._read())
        # The first answer waits for an interpreter, or a browser, to start.
        self.about = await self.request("about", deadline=40)
        return self

    @property
    def alive(self):
        return self.process is not None and self.process.returncode is None and not self.reading.done()

    async def stop(self):
        if self.process is None:
            return
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 5)
        except asyncio.TimeoutError:
            self.process.kill()
            await self.process.wait()
        self.reading.cancel()

    async def request(self, op, session=None, deadline=DEADLINE, **params):
        if not self.alive:
            raise Failure(f"{op}: the client's process has ended (see {self.log})")
        number = next(self.numbers)
        answer = self.answers[number] = asyncio.get_running_loop().create_future()
        line = {"id": number, "op": op, "session": session, **pack(params)}
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        try:
            return await asyncio.wait_for(answer, deadline)
        except asyncio.TimeoutError:
            raise Failure(f"{op}: no answer within {deadline:g} s") from None
        finally:
            self.answers.pop(number, None)

    async def _read(self):
        try:
            while line := await self.process.stdout.readline():
                self._take(json.loads(line))
        finally:
            for answer in self.answers.values():
                if not answer.done():
                    answer.set_exception(Failure(f"the client's process ended (see {self.log})"))
            for session in self.sessions.values():
                session.take({"event": "closed", "reason": "the client's process ended"})

    def _take(self, line):
        if "event" in line:
            sessions = [self.sessions.get(line.get("session"))] if line.get("session") else self.sessions.values()
            for session in filter(None, sessions):
                session.take(line)
        elif (answer := self.answers.get(line["id"])) and not answer.done():
            if "error" in line:
                answer.set_exception(Refused("refused", line["error"]))
            else:
                answer.set_result(unpack(line["ok"]))


class Session:
    """One connection of one client: operations out, messages in, kept apart by subscription key."""

    names = itertools.count(1)

    def __init__(self, client, driver):
        self.client, self.driver = client, driver
        self.name = f"s{next(Session.names)}"
        self.details, self.inboxes, self.problems = {}, defaultdict(deque), []
        self.arrival, self.closed = asyncio.Event(), None
        driver.sessions[self.name] = self

    async def connect(self, **extra):
        self.details = await self.driver.request("connect", self.name, **{**self.client.params, **extra}) or {}
        return self

    async def op(self, op, deadline=DEADLINE, **params):
        try:
            return await self.driver.request(op, self.name, deadline, **params)
        except Failure as failure:
            if self.problems and not isinstance(failure, Refused):
                raise Failure(f"{failure}; before that: {self.problems[-1]}") from None
            raise

    async def close(self):
        """Leaves; never an error, as it may have been closed from the other side."""
        try:
            if self.closed is None and self.driver.alive:
                await self.driver.request("close", self.name, deadline=3)
        except Failure:
            pass

    def forget(self):
        self.driver.sessions.pop(self.name, None)

    def take(self, line):
        kind = line.pop("event")
        if kind == "message":
            self.inboxes[line["key"]].append(unpack(line))
        elif kind == "closed":
            self.closed = line
        else:
            self.problems.append(unpack({"kind": kind, **line}))
        self.arrival.set()

    async def until(self, ready, what, deadline=DEADLINE):
        """Waits for `ready()` to give something."""
        end = asyncio.get_running_loop().time() + deadline
        while not (found := ready()):
            if self.closed is not None:
                raise Failure(f"{what}: the connection was closed ({self.closed.get('reason')}){self._trouble()}")
            self.arrival.clear()
            left = end - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self.arrival.wait(), max(left, 0))
            except asyncio.TimeoutError:
                raise Failure(f"{what}: nothing within {deadline:g} s{self._trouble()}") from None
        return found

    def _trouble(self):
        return f"; trouble: {self.problems[-1]}" if self.problems else ""

    async def next(self, key, what="a message", deadline=DEADLINE):
        """The next message of a subscription."""
        inbox = self.inboxes[key]
        await self.until(lambda: bool(inbox), what, deadline)
        return inbox.popleft()

    async def wait_closed(self, deadline=DEADLINE):
        await self.until(lambda: self.closed is not None, "the end of the connection", deadline)
        return self.closed

    async def wait_problem(self, deadline=DEADLINE):
        await self.until(lambda: bool(self.problems), "an error from the broker", deadline)
        return self.problems[0]
