"""stompman: STOMP 1.2 over TCP, on asyncio. It names subscriptions and transactions itself."""

import asyncio
import contextlib
import itertools

import stompman

from lib import serve

RECEIPT_TIME = 10  # seconds


class Aborted(Exception):
    """Ends a transaction without COMMIT."""


class Session:
    def __init__(self, params, emit):
        self.emit = emit
        self.subscriptions, self.transactions, self.messages = {}, {}, {}
        self.handles = itertools.count(1)
        beats = params.get("heartbeat") or (0, 0)
        server = stompman.ConnectionParameters(
            host=params["host"], port=params["port"], login=params.get("login") or "", passcode=params.get("passcode") or "")
        self.client = stompman.Client(
            servers=[server], heartbeat=stompman.Heartbeat(*beats), on_error_frame=self._failed,
            connect_retry_attempts=1, write_retry_attempts=1)
        self.ended, self.ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._live())

    async def _live(self):
        """The client is a context manager, which must be entered and left by one task."""
        try:
            async with self.client:
                self.ready.set_result(None)
                await self.ended.wait()
                for subscription in list(self.subscriptions.values()):
                    await subscription.unsubscribe()
        except BaseException as error:
            if not self.ready.done():
                self.ready.set_exception(ConnectionError(str(error)))
            self.emit({"event": "closed", "reason": f"{type(error).__name__}: {error}"})
        else:
            self.emit({"event": "closed", "reason": "disconnected"})

    def _failed(self, frame):
        self.emit({"event": "error", "headers": dict(frame.headers), "body": frame.body})

    @property
    def details(self):
        return {"version": self.client.PROTOCOL_VERSION}

    async def subscribe(self, key, destination, headers=None, receipt=False):
        headers = dict(headers or {})

        async def take(frame):
            handle = next(self.handles)
            self.messages[handle] = frame
            self.emit({"event": "message", "key": key, "handle": handle, "headers": dict(frame.headers), "body": frame.body})

        self.subscriptions[key] = await self.client.subscribe_with_manual_ack(
            destination, take, ack=headers.pop("ack", "auto"), headers=headers,
            receipt_timeout=RECEIPT_TIME if receipt else None)

    async def unsubscribe(self, key, headers=None):
        await self.subscriptions.pop(key).unsubscribe()

    async def _take_replies(self, destination):
        """The library drops what no subscription of its own brings: it must subscribe to its answers."""
        if destination not in self.subscriptions:
            await self.subscribe(destination, destination, receipt=True)

    async def send(self, destination, body, headers=None, receipt=False):
        headers = dict(headers or {})
        body = body.encode() if isinstance(body, str) else body
        kind = headers.pop("content-type", None)
        if headers.get("reply-to", "").startswith("/temp-queue/"):
            await self._take_replies(headers["reply-to"])
        if transaction := headers.pop("transaction", None):
            _, begun = self.transactions[transaction]
            return await begun.send(body, destination, content_type=kind, headers=headers)
        await self.client.send(body, destination, content_type=kind, headers=headers,
                               receipt_timeout=RECEIPT_TIME if receipt else None)

    async def ack(self, handle, headers=None):
        await self.messages[handle].ack()

    async def nack(self, handle, headers=None):
        await self.messages[handle].nack()

    async def begin(self, transaction):
        # A context, which must be kept: it ends the transaction when nobody knows it any more.
        context = self.client.begin()
        self.transactions[transaction] = (context, await context.__aenter__())

    async def _end(self, transaction, error):
        context, _ = self.transactions.pop(transaction)
        with contextlib.suppress(Aborted):
            await context.__aexit__(error and type(error), error, None)

    async def commit(self, transaction):
        await self._end(transaction, None)

    async def abort(self, transaction):
        await self._end(transaction, Aborted())

    async def close(self):
        self.ended.set()
        with contextlib.suppress(BaseException):
            await asyncio.wait_for(self.task, RECEIPT_TIME)


async def connect(params, emit):
    session = Session(params, emit)
    await session.ready
    return session


serve("stompman", connect)
