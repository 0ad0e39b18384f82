"""stompman: STOMP 1.2 over TCP, asynchronous."""

import asyncio

import stompman
from stompman.subscription import ManualAckSubscription
from stompman.frames import AbortFrame, AckFrame, BeginFrame, CommitFrame, NackFrame, SendFrame

from lib import serve

RECEIPT_TIME = 30  # seconds; the runner gives up before


class Session:
    def __init__(self, params, emit):
        self.emit, self.subscriptions, self.messages = emit, {}, {}
        beats = params.get("heartbeat") or (0, 0)
        at = stompman.ConnectionParameters(params["host"], params["port"], params.get("login", ""),
                                           params.get("passcode", ""))
        self.client = stompman.Client(
            [at], heartbeat=stompman.Heartbeat(*beats), on_error_frame=self.on_error, connect_retry_attempts=1,
            no_message_restart_interval=None, max_concurrent_handlers=1)

    async def open(self):
        await self.client.__aenter__()
        # It would connect again and say nothing.
        manager = self.client._connection_manager
        lost = manager.on_connection_lost

        def closed(*args):
            self.emit({"event": "closed", "reason": "the connection was lost"})
            return lost(*args)

        manager.on_connection_lost = closed
        return self

    @property
    def details(self):
        beats = self.client._connection_manager._active_connection_state.server_heartbeat
        return {"version": self.client.PROTOCOL_VERSION,
                "heart-beat": f"{beats.will_send_interval_ms},{beats.want_to_receive_interval_ms}"}

    def on_error(self, frame):
        self.emit({"event": "error", "headers": dict(frame.headers), "body": frame.body})

    def arrived(self, key):
        async def take(frame):
            handle = len(self.messages) + 1
            self.messages[handle] = frame
            self.emit({"event": "message", "key": key, "handle": handle, "headers": dict(frame.headers),
                       "body": frame.body})
        return take

    async def subscribe(self, key, destination, headers=None, receipt=False):
        headers = dict(headers or {})
        mode = headers.pop("ack", "auto")

        self.subscriptions[key] = await self.client.subscribe_with_manual_ack(
            destination, self.arrived(key), ack=mode, headers=headers, receipt_timeout=RECEIPT_TIME if receipt else None)

    async def unsubscribe(self, key, headers=None):
        await self.subscriptions.pop(key).unsubscribe()

    async def send(self, destination, body, headers=None, receipt=False):
        body, headers = body.encode() if isinstance(body, str) else body, dict(headers or {})
        replies, known = headers.get("reply-to", ""), self.client._active_subscriptions
        if replies.startswith("/temp-queue/") and not known.contains_by_id(replies):
            # The broker subscribes the client to it; the library only hears of what it subscribed to itself.
            known.subscriptions[replies] = ManualAckSubscription(
                destination=replies, headers=None, ack="auto", handler=self.arrived(replies),
                _connection_manager=self.client._connection_manager, _active_subscriptions=known)
        kind, transaction = headers.pop("content-type", None), headers.pop("transaction", None)
        if transaction:
            # Its own transactions have names that it makes up.
            return await self._write(SendFrame.build(body=body, destination=destination, transaction=transaction,
                                                     content_type=kind, add_content_length=True, headers=headers))
        await self.client.send(body, destination, content_type=kind, headers=headers,
                               receipt_timeout=RECEIPT_TIME if receipt else None)

    async def _write(self, frame):
        await self.client._connection_manager.write_frame_reconnecting(frame)

    async def _settle(self, kind, own, handle, headers):
        frame = self.messages[handle]
        if transaction := (headers or {}).get("transaction"):
            return await self._write(kind(headers={"id": frame.headers["ack"], "transaction": transaction,
                                           "subscription": frame.headers["subscription"]}))
        await own(frame)()

    def ack(self, handle, headers=None):
        return self._settle(AckFrame, lambda frame: frame.ack, handle, headers)

    def nack(self, handle, headers=None):
        return self._settle(NackFrame, lambda frame: frame.nack, handle, headers)

    def begin(self, transaction):
        return self._write(BeginFrame(headers={"transaction": transaction}))

    def commit(self, transaction):
        return self._write(CommitFrame(headers={"transaction": transaction}))

    def abort(self, transaction):
        return self._write(AbortFrame(headers={"transaction": transaction}))

    async def close(self):
        for key in list(self.subscriptions):
            await self.unsubscribe(key)
        await self.client.__aexit__(None, None, None)
        self.emit({"event": "closed", "reason": "disconnected"})

    def drop(self):
        self.client._connection_manager._active_connection_state.connection.writer.transport.abort()


async def connect(params, emit):
    return await Session(params, emit).open()


serve("stompman", connect)
