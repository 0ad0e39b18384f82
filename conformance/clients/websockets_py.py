"""`websockets`, a bare WebSocket client: for what a handshake and single frames must do."""

import asyncio

from websockets.asyncio.client import connect as dial
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lib import serve


class Session:
    def __init__(self, socket, emit):
        self.socket, self.emit = socket, emit
        extensions = [extension.name for extension in socket.protocol.extensions]
        self.details = {"status": 101, "protocol": socket.subprotocol, "extensions": ",".join(extensions)}
        self.reading = asyncio.create_task(self.read())

    async def read(self):
        try:
            async for message in self.socket:
                self.emit({"event": "message", "key": "frame", "body": message})
        except ConnectionClosed:
            pass
        await self.socket.wait_closed()
        self.emit({"event": "closed", "code": self.socket.close_code, "reason": self.socket.close_reason})

    async def write(self, body):
        await self.socket.send(body)

    async def ping(self, body):
        pong = await self.socket.ping(body)

        async def arrived():
            await pong
            self.emit({"event": "message", "key": "pong", "body": body})

        self.pong = asyncio.create_task(arrived())

    async def close(self, code=1000):
        await self.socket.close(code)

    def drop(self):
        self.socket.transport.abort()


class Turned:
    """A handshake that was answered with something else than 101."""

    def __init__(self, status):
        self.details = {"status": status}

    def close(self, **_):
        pass


async def connect(params, emit):
    try:
        socket = await dial(
            params["url"], subprotocols=params.get("protocols") or None, max_size=None, ping_interval=None,
            compression="deflate" if params.get("compression") else None,
            additional_headers=params.get("headers"), proxy=None)
    except InvalidStatus as error:
        return Turned(error.response.status_code)
    return Session(socket, emit)


serve("websockets", connect)
