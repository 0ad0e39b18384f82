"""stomp.py: STOMP 1.0, 1.1 and 1.2 over TCP, and 1.2 over WebSocket (its WSTransport)."""

import asyncio
import itertools
import socket
import threading

import stomp
from stomp.adapter.ws import WSStompConnection

from lib import serve

TCP = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}


class Listener(stomp.ConnectionListener):
    """Runs on the library's own thread."""

    def __init__(self, session, emit):
        self.session, self.emit = session, emit
        self.connected, self.details, self.trouble = threading.Event(), {}, None
        self.receipts, self.messages = {}, {}
        self.handles = itertools.count(1)

    def on_connected(self, frame):
        self.details = frame.headers
        self.connected.set()

    def on_message(self, frame):
        handle = next(self.handles)
        self.messages[handle] = frame.headers
        key = self.session.key_of(frame.headers)
        self.emit({"event": "message", "key": key, "handle": handle, "headers": frame.headers, "body": frame.body})

    def on_receipt(self, frame):
        if waiting := self.receipts.pop(frame.headers["receipt-id"], None):
            waiting.set()

    def on_error(self, frame):
        self.failed(f"ERROR: {frame.headers.get('message')}")
        self.emit({"event": "error", "headers": frame.headers, "body": frame.body})

    def on_disconnected(self):
        self.failed("disconnected")
        self.emit({"event": "closed", "reason": "disconnected"})

    def failed(self, why):
        self.trouble = self.trouble or why
        self.connected.set()
        for waiting in list(self.receipts.values()):
            waiting.set()


class Session:
    def __init__(self, params, emit):
        self.version = params["version"]
        self.keys = {}  # destination -> key: a 1.0 MESSAGE may name no subscription
        self.numbers = itertools.count(1)
        at, beats = [(params["host"], params["port"])], tuple(params.get("heartbeat") or (0, 0))
        options = {"auto_decode": False, "reconnect_attempts_max": 1}
        if self.version != "1.0":
            options["heartbeats"] = beats
            options["vhost"] = params.get("vhost") or params["host"]
        if params["transport"] == "websocket":
            if params.get("authorization"):
                options["header"] = {"Authorization": params["authorization"]}
            self.stomp = WSStompConnection(at, ws_path=params["path"],
                                           binary_mode=bool(params.get("binary")), **options)
        else:
            self.stomp = TCP[self.version](at, **options)
        self.listener = Listener(self, emit)
        self.stomp.set_listener("driver", self.listener)
        self.stomp.connect(params.get("login"), params.get("passcode"))
        self.listener.connected.wait()
        if self.listener.trouble:
            raise ConnectionError(self.listener.trouble)
        self.details = self.listener.details

    def key_of(self, headers):
        destination, subscription = headers["destination"], headers.get("subscription")
        if self.version == "1.0" and destination in self.keys:
            return self.keys[destination]
        return subscription or destination

    async def _with_receipt(self, wanted, headers, send):
        """Sends, off the event loop: a socket may block."""
        headers = dict(headers or {})
        if not wanted:
            return await asyncio.to_thread(send, headers)
        headers["receipt"] = f"receipt-{next(self.numbers)}"
        waiting = self.listener.receipts[headers["receipt"]] = threading.Event()
        receipt = headers["receipt"]
        await asyncio.to_thread(send, headers)
        await asyncio.to_thread(waiting.wait)
        if receipt in self.listener.receipts:
            raise ConnectionError(self.listener.trouble)
        return {"receipt": receipt}

    def subscribe(self, key, destination, headers=None, receipt=False):
        headers = dict(headers or {})
        mode = headers.pop("ack", "auto")
        self.keys[destination] = key
        number = None if self.version == "1.0" else key
        return self._with_receipt(receipt, headers, lambda h: self.stomp.subscribe(
            destination, id=number, ack=mode, headers=h))

    def unsubscribe(self, key, headers=None):
        if self.version == "1.0":
            destination = next(d for d, k in self.keys.items() if k == key)
            self.stomp.unsubscribe(destination=destination, headers=headers)
        else:
            self.stomp.unsubscribe(id=key, headers=headers)

    def send(self, destination, body, headers=None, receipt=False):
        headers = dict(headers or {})
        kind = headers.pop("content-type", None)
        return self._with_receipt(receipt, headers, lambda h: self.stomp.send(
            destination, body, content_type=kind, headers=h))

    def _settle(self, verb, handle, headers):
        message, transaction = self.listener.messages[handle], (headers or {}).get("transaction")
        if self.version == "1.2":
            verb(message["ack"], transaction=transaction)
        elif self.version == "1.1":
            verb(message["message-id"], message["subscription"], transaction=transaction)
        else:
            verb(message["message-id"], transaction=transaction)

    def ack(self, handle, headers=None):
        self._settle(self.stomp.ack, handle, headers)

    def nack(self, handle, headers=None):
        self._settle(self.stomp.nack, handle, headers)

    def begin(self, transaction):
        self.stomp.begin(transaction)

    def commit(self, transaction):
        self.stomp.commit(transaction)

    def abort(self, transaction):
        self.stomp.abort(transaction)

    async def close(self):
        # The library closes the socket when its receipt has come.
        await asyncio.to_thread(self.stomp.disconnect, receipt="goodbye")

    def drop(self):
        # Over WebSocket the library's own way only closes the socket, which, with its reader waiting on it,
        # the broker does not see.
        wire = self.stomp.transport.socket
        getattr(wire, "sock", wire).shutdown(socket.SHUT_RDWR)


async def connect(params, emit):
    return await asyncio.to_thread(Session, params, emit)


serve("stomp.py", connect)
