"""stompest: STOMP 1.0, 1.1 and 1.2 over TCP. A library without threads: one of ours reads."""

import asyncio
import itertools
import socket
import threading
import time

from stompest.config import StompConfig
from stompest.protocol import StompFrame, StompSpec, commands
from stompest.sync import Stomp

from lib import serve

POLL = 0.01  # seconds; how long a read may hold up what is to be sent


class Session:
    def __init__(self, params, emit):
        self.emit, self.lock = emit, threading.RLock()
        self.keys, self.tokens = {}, {}  # token -> key, key -> token
        self.messages, self.handles, self.numbers = {}, itertools.count(1), itertools.count(1)
        self.receipts, self.over = {}, None
        uri = f"tcp://{params['host']}:{params['port']}"
        config = StompConfig(uri, login=params.get("login"), passcode=params.get("passcode"),
                             version=params["version"], check=True)
        self.client = Stomp(config)
        self.beats = tuple(params.get("heartbeat") or (0, 0))
        options = {} if params["version"] == StompSpec.VERSION_1_0 else {
            "host": params.get("vhost") or params["host"], "heartBeats": self.beats}
        self.client.connect(versions=[params["version"]], connectTimeout=5, connectedTimeout=5, **options)
        session = self.client.session
        self.details = {"version": session.version, "session": session.id, "server": session.server,
                        "heart-beat": f"{session.serverHeartBeat},{session.clientHeartBeat}"}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        beat_at = time.monotonic()
        try:
            while not self.over:
                with self.lock:
                    frame = self.client.receiveFrame() if self.client.canRead(POLL) else None
                    if self.beats[0] and time.monotonic() >= beat_at:
                        self.client.beat()
                        beat_at = time.monotonic() + self.beats[0] / 2000
                if frame:
                    self._take(frame)
                else:
                    time.sleep(POLL / 10)
        except Exception as error:  # the library has a kind of its own for each end of a connection
            self._end(f"{type(error).__name__}: {error}")

    def _take(self, frame):
        headers = dict(frame.headers)
        if frame.command == StompSpec.MESSAGE:
            handle = next(self.handles)
            self.messages[handle] = frame
            # What a reply-to brings was not subscribed to, and the library does not know it.
            answer = headers.get("subscription", "").startswith("/temp-queue/")
            key = headers["subscription"] if answer else self.keys[self.client.message(frame)]
            self.emit({"event": "message", "key": key, "handle": handle, "headers": headers, "body": frame.body})
        elif frame.command == StompSpec.RECEIPT:
            self.receipts.pop(headers["receipt-id"]).set()
        elif frame.command == StompSpec.ERROR:
            self.emit({"event": "error", "headers": headers, "body": frame.body})

    def _end(self, reason):
        if not self.over:
            self.over = reason
            for waiting in list(self.receipts.values()):
                waiting.set()
            self.emit({"event": "closed", "reason": reason})

    async def _say(self, say, receipt=False):
        """Sends, off the event loop, with a receipt if one is wanted."""
        number, waiting = None, threading.Event()
        if receipt:
            number = f"receipt-{next(self.numbers)}"
            self.receipts[number] = waiting

        def locked():
            with self.lock:
                return say(number)

        result = await asyncio.to_thread(locked)
        if receipt:
            await asyncio.to_thread(waiting.wait)
            if number in self.receipts:
                raise ConnectionError(self.over)
        return result

    async def subscribe(self, key, destination, headers=None, receipt=False):
        # In 1.0 too, where it is optional: the library cannot tell by its destination what a wildcard brought.
        headers = dict(headers or {}) | {"id": key}

        def say(number):
            # Known before its first message can come.
            _, token = commands.subscribe(destination, headers, version=self.details["version"])
            self.keys[token], self.tokens[key] = key, token
            self.client.subscribe(destination, headers, receipt=number)

        await self._say(say, receipt)

    def unsubscribe(self, key, headers=None):
        return self._say(lambda _: self.client.unsubscribe(self.tokens[key]))

    def send(self, destination, body, headers=None, receipt=False):
        body = body.encode() if isinstance(body, str) else body
        # The library leaves it to its user to tell the length, without which a body ends at its first NUL.
        headers = dict(headers or {}) | {"content-length": str(len(body))}
        return self._say(lambda number: self.client.send(destination, body, headers, receipt=number), receipt)

    def _settle(self, verb, handle, headers):
        # The library puts an ACK into a transaction if the MESSAGE names it.
        frame = self.messages[handle]
        if transaction := (headers or {}).get("transaction"):
            frame = StompFrame(frame.command, dict(frame.headers) | {"transaction": transaction}, frame.body,
                               version=frame.version)
        return self._say(lambda _: verb(frame))

    def ack(self, handle, headers=None):
        return self._settle(self.client.ack, handle, headers)

    def nack(self, handle, headers=None):
        return self._settle(self.client.nack, handle, headers)

    def begin(self, transaction):
        return self._say(lambda _: self.client.begin(transaction))

    def commit(self, transaction):
        return self._say(lambda _: self.client.commit(transaction))

    def abort(self, transaction):
        return self._say(lambda _: self.client.abort(transaction))

    async def close(self):
        await self._say(lambda number: self.client.disconnect(receipt=number), receipt=True)
        self._end("disconnected")
        await asyncio.to_thread(self._locked_close)

    def _locked_close(self):
        with self.lock:
            self.client.close(flush=True)

    def drop(self):
        with self.lock:
            self.client._transport._socket.shutdown(socket.SHUT_RDWR)


async def connect(params, emit):
    return await asyncio.to_thread(Session, params, emit)


serve("stompest", connect)
