"""One end of the line protocol, for a driver in Python. See "The line protocol" in ../README.md."""

import asyncio
import base64
import inspect
import json
import os
import sys
import traceback
from importlib.metadata import version


class Refused(Exception):
    """What a broker refused: its WAMP error URI and arguments travel to the runner."""

    def __init__(self, uri, args=(), kwargs=None):
        super().__init__(uri)
        self.uri, self.uri_args, self.uri_kwargs = uri, list(args), dict(kwargs or {})


def pack(value):
    """A library's value, ready for JSON: bytes become {"$bytes": base64}."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if type(value).__name__ == "CBORTag" and value.tag == 64:
        # RFC 8746: an array of uint8, which is what cbor-x makes of bytes.
        return pack(value.value)
    if isinstance(value, dict):
        return {str(key): pack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def unpack(value):
    if isinstance(value, dict):
        if set(value) == {"$bytes"}:
            return base64.b64decode(value["$bytes"])
        return {key: unpack(item) for key, item in value.items()}
    return [unpack(item) for item in value] if isinstance(value, list) else value


def serve(library, connect):
    """Serves a client library on stdin and stdout until stdin ends.

    `await connect(params, emit)` opens one session: an object with one method per operation,
    plain or async, and `details`. `emit` may be called from any thread.
    """
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries like to talk; stdout is ours
    asyncio.run(_serve({"library": library, "version": version(library)}, connect, out))
    out.flush()
    os._exit(0)  # a library's threads do not hold us back


async def _serve(about, connect, out):
    loop = asyncio.get_running_loop()
    sessions = {}

    def send(line):
        out.write(json.dumps(line) + "\n")

    async def handle(request):
        number, name, op = request.pop("id"), request.pop("session", None), request.pop("op")
        try:
            params = unpack(request)
            if op == "about":
                answer = about
            elif op == "connect":
                def emit(event):
                    loop.call_soon_threadsafe(send, {"session": name, **pack(event)})

                sessions[name] = await connect(params, emit)
                answer = sessions[name].details
            else:
                answer = getattr(sessions[name], op)(**params)
                if inspect.isawaitable(answer):
                    answer = await answer
            send({"id": number, "ok": pack(answer)})
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            failure = {"message": f"{type(error).__name__}: {error}"}
            if isinstance(error, Refused):
                failure |= {"uri": error.uri, "args": error.uri_args, "kwargs": error.uri_kwargs}
            send({"id": number, "error": pack(failure)})

    tasks = set()
    reader = asyncio.StreamReader(limit=64 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        task = asyncio.create_task(handle(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
