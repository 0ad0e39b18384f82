"""aiostomp: STOMP 1.1 over TCP, asynchronous. It knows no receipts and no transactions.

Receipts are added here, from outside: the runner needs to know when something has been done.
"""

import asyncio
import itertools

from aiostomp import AioStomp
from aiostomp.subscription import Subscription

from lib import serve


class Session:
    def __init__(self, params, emit):
        self.params, self.emit = params, emit
        self.numbers, self.subscriptions, self.messages, self.receipts = itertools.count(1), {}, {}, {}
        self.connected, self.trouble = asyncio.get_running_loop().create_future(), None
        beats = params.get("heartbeat") or (0, 0)
        self.client = AioStomp(params["host"], params["port"], reconnect_max_attempts=0,
                               heartbeat=any(beats), heartbeat_interval_cx=beats[0], heartbeat_interval_cy=beats[1],
                               error_handler=self.on_error)
        lost = self.client.connection_lost

        def closed(error):
            self.client._closed = True  # it would connect again
            self.failed("the connection was lost")
            self.emit({"event": "closed", "reason": "the connection was lost"})
            lost(error)

        self.client.connection_lost = closed

    async def open(self):
        await self.client.connect(self.params.get("login"), self.params.get("passcode"))
        reader = self.client._protocol._protocol
        own = reader.handlers_map["CONNECTED"]

        async def connected(frame):
            await own(frame)
            self.connected.set_result(frame.headers)

        async def receipt(frame):
            if waiting := self.receipts.pop(frame.headers["receipt-id"], None):
                waiting.set_result(None)

        async def error(frame):
            self.emit({"event": "error", "headers": dict(frame.headers), "body": frame.body})
            self.failed(f"ERROR: {frame.headers.get('message')}")

        reader.handlers_map |= {"CONNECTED": connected, "RECEIPT": receipt, "ERROR": error}
        self.details = dict(await self.connected)
        return self

    async def on_error(self, error):
        self.failed(str(error))

    def failed(self, why):
        for waiting in [*self.receipts.values(), self.connected]:
            if not waiting.done():
                waiting.set_exception(ConnectionError(why))

    async def _asking(self, wanted, headers, send):
        headers = dict(headers or {})
        if not wanted:
            return send(headers)
        number = f"receipt-{next(self.numbers)}"
        waiting = self.receipts[number] = asyncio.get_running_loop().create_future()
        send(headers | {"receipt": number})
        await waiting
        return {"receipt": number}

    def arrived(self, key):
        async def take(frame, body):
            handle = len(self.messages) + 1
            self.messages[handle] = frame
            self.emit({"event": "message", "key": key, "handle": handle, "headers": dict(frame.headers),
                       "body": body or ""})  # no body is None to it
        return take

    async def subscribe(self, key, destination, headers=None, receipt=False):
        headers = dict(headers or {})
        mode = headers.pop("ack", "auto")

        def send(all_headers):
            self.subscriptions[key] = self.client.subscribe(destination, mode, all_headers, self.arrived(key),
                                                            auto_ack=False)

        await self._asking(receipt, headers, send)

    def unsubscribe(self, key, headers=None):
        self.client.unsubscribe(self.subscriptions.pop(key))

    def send(self, destination, body, headers=None, receipt=False):
        replies = (headers or {}).get("reply-to", "")
        if replies.startswith("/temp-queue/") and not self.client.get(replies):
            # The broker subscribes the client to it; the library only hears of what it subscribed to itself.
            self.client._subscriptions[replies] = Subscription(replies, replies, "auto", {}, self.arrived(replies), False)
        return self._asking(receipt, headers, lambda h: self.client.send(destination, body, h))

    def ack(self, handle, headers=None):
        self.client.ack(self.messages[handle])

    def nack(self, handle, headers=None):
        self.client.nack(self.messages[handle])

    def close(self):
        self.client.close()

    def drop(self):
        self.client._closed = True
        self.client._protocol._transport.abort()


async def connect(params, emit):
    return await Session(params, emit).open()


serve("aiostomp", connect)
