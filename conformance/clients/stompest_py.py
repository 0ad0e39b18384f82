"""stompest: STOMP 1.0, 1.1 and 1.2 over TCP, by its synchronous client."""

import asyncio
import itertools
import socket
import threading

from stompest.config import StompConfig
from stompest.error import StompError
from stompest.protocol import StompFrame, StompSpec
from stompest.sync import Stomp

from lib import serve


class Session:
    def __init__(self, params, emit):
        self.version, self.emit = params["version"], emit
        self.numbers, self.handles = itertools.count(1), itertools.count(1)
        self.messages, self.tokens, self.receipts, self.keys = {}, {}, {}, {}
        self.trouble, self.closing = None, False
        # The library is for one thread: one reads, the others write, each in its turn.
        self.turn = threading.Lock()
        self.stomp = Stomp(StompConfig(f"tcp://{params['host']}:{params['port']}", params.get("login"),
                                       params.get("passcode"), version=self.version))
        beats = tuple(params.get("heartbeat") or (0, 0)) if self.version != "1.0" else None
        self.stomp.connect(versions=[self.version], host=params.get("vhost") or params["host"], heartBeats=beats,
                           connectTimeout=5, connectedTimeout=5)
        self.details = {"version": self.stomp.session.version, "session": self.stomp.session.id,
                        "heart-beat": f"{self.stomp.serverHeartBeat},{self.stomp.clientHeartBeat}"}
        self.beat = self.stomp.clientHeartBeat / 2000 if self.stomp.clientHeartBeat else None
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        idle = 0.0
        try:
            while not self.closing:
                with self.turn:
                    frame = self.stomp.receiveFrame() if self.stomp.canRead(0.02) else None
                    idle += 0.02
                    if self.beat and idle > self.beat:
                        self.stomp.beat()
                        idle = 0.0
                if frame:
                    self.take(frame)
                else:
                    threading.Event().wait(0.001)  # lets the writers have their turn
        except (StompError, OSError, AttributeError) as error:
            if not self.closing:
                self.failed(str(error))
                self.emit({"event": "closed", "reason": str(error)})

    def take(self, frame):
        if frame.command == StompSpec.MESSAGE:
            handle = next(self.handles)
            self.messages[handle] = frame
            destination = frame.headers["destination"]
            key = self.keys.get(destination) if self.version == "1.0" else frame.headers["subscription"]
            self.emit({"event": "message", "key": key or destination, "handle": handle,
                       "headers": dict(frame.headers), "body": frame.body})
        elif frame.command == StompSpec.RECEIPT:
            if waiting := self.receipts.pop(self.stomp.receipt(frame), None):
                waiting.set()
        else:
            self.failed(f"ERROR: {frame.headers.get('message')}")
            self.emit({"event": "error", "headers": dict(frame.headers), "body": frame.body})

    def failed(self, why):
        self.trouble = self.trouble or why
        for waiting in list(self.receipts.values()):
            waiting.set()

    def _say(self, wanted, send):
        """Sends, and waits for the receipt if one is wanted."""
        receipt = f"receipt-{next(self.numbers)}" if wanted else None
        waiting = threading.Event()
        with self.turn:
            if receipt:
                self.receipts[receipt] = waiting
            send(receipt)
        if not receipt:
            return {}
        waiting.wait()
        if receipt in self.receipts:
            raise ConnectionError(self.trouble)
        return {"receipt": receipt}

    def subscribe(self, key, destination, headers=None, receipt=False):
        headers = dict(headers or {})
        headers.setdefault("ack", "auto")
        self.keys[destination] = key
        if self.version != "1.0":
            headers["id"] = key

        def send(number):
            self.tokens[key] = self.stomp.subscribe(destination, headers, number)
        return asyncio.to_thread(self._say, receipt, send)

    def unsubscribe(self, key, headers=None):
        return asyncio.to_thread(self._say, False, lambda _: self.stomp.unsubscribe(self.tokens.pop(key)))

    def send(self, destination, body, headers=None, receipt=False):
        body = body.encode() if isinstance(body, str) else body
        headers = {"content-length": str(len(body))} | dict(headers or {})
        return asyncio.to_thread(self._say, receipt, lambda number: self.stomp.send(
            destination, body, headers, number))

    def _settle(self, command, handle, headers):
        message = self.messages[handle]
        # The library takes the transaction from the message.
        frame = StompFrame(message.command, {**message.headers, **(headers or {})}, version=self.version)
        return asyncio.to_thread(self._say, False, lambda _: command(frame))

    def ack(self, handle, headers=None):
        return self._settle(self.stomp.ack, handle, headers)

    def nack(self, handle, headers=None):
        return self._settle(self.stomp.nack, handle, headers)

    def begin(self, transaction):
        return asyncio.to_thread(self._say, False, lambda _: self.stomp.begin(transaction))

    def commit(self, transaction):
        return asyncio.to_thread(self._say, False, lambda _: self.stomp.commit(transaction))

    def abort(self, transaction):
        return asyncio.to_thread(self._say, False, lambda _: self.stomp.abort(transaction))

    async def close(self):
        await asyncio.to_thread(self._say, True, lambda number: self.stomp.disconnect(number))
        self.closing = True
        with self.turn:
            self.stomp.close()
        self.emit({"event": "closed", "reason": "disconnected"})

    def drop(self):
        self.closing = True
        with self.turn:
            self.stomp._transport._socket.shutdown(socket.SHUT_RDWR)


async def connect(params, emit):
    return await asyncio.to_thread(Session, params, emit)


serve("stompest", connect)
