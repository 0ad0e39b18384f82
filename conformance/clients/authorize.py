#!/usr/bin/env python3
"""autobahn-python decides, as a dynamic authorizer, what another autobahn-python may do.

    conformance/.venv/bin/python conformance/clients/authorize.py target/debug/tandem     starts the daemon

By hand, for `run.py` knows no permissions. Exits 1 if anything is not as it should be.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile

from autobahn.asyncio.component import Component
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import PublishOptions, SubscribeOptions

TANDEM = sys.argv[1]
CONFIG = """
[[permissions]]
role = "*"
actions = ["register"]
name = "com.example.authorize"
allow = true
[[permissions]]
role = "*"
actions = "*"
name = ""
match = "prefix"
authorizer = "com.example.authorize"
"""

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    ADDRESS = f"127.0.0.1:{probe.getsockname()[1]}"
with tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False) as f:
    f.write(CONFIG)
daemon = subprocess.Popen([TANDEM, "serve", "--listen", ADDRESS, "--config", f.name],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
asked = []


def authorize(session, uri, action, options):
    asked.append((session["authrole"], uri, action, options["match"]))
    if uri.startswith("dict."):
        return {"allow": True, "disclose": True, "cache": True}
    return uri.startswith("yes.")


async def join(serializer):
    joined = asyncio.get_running_loop().create_future()
    component = Component(realm="realm1", transports=[
        {"type": "websocket", "url": f"ws://{ADDRESS}/", "max_retries": 5, "serializers": [serializer]}])
    component.on_join(lambda session, details: joined.set_result(session))
    component.start()
    return await asyncio.wait_for(joined, 10)


async def outcome(request):
    try:
        await asyncio.wait_for(request, 10)
        return "allowed"
    except ApplicationError as error:
        return error.error


async def main():
    await asyncio.sleep(1)
    passed = failed = 0

    def check(what, said, expected):
        nonlocal passed, failed
        good = said == expected
        passed, failed = passed + good, failed + (not good)
        print("ok  " if good else "FAIL", what, "->", said, flush=True)

    acknowledged = PublishOptions(acknowledge=True, exclude_me=False)
    judge = await join("cbor")
    for serializer in ("json", "cbor"):
        client = await join(serializer)
        missing = await outcome(client.subscribe(print, "yes.t"))
        if serializer == "json":
            check("nobody to ask", missing, "wamp.error.authorization_failed")
            await judge.register(authorize, "com.example.authorize")
        heard = asyncio.Queue()
        for name, allowed in (("yes", True), ("dict", True), ("no", False)):
            expected = "allowed" if allowed else "wamp.error.not_authorized"
            requests = {
                "subscribe": client.subscribe(lambda *args, details, heard=heard: heard.put_nowait(details.publisher_authid),
                                              f"{name}.t", SubscribeOptions(details_arg="details")),
                "pattern": client.subscribe(print, f"{name}.", SubscribeOptions(match="prefix")),
                "publish": client.publish(f"{name}.t", 1, options=acknowledged),
                "register": client.register(lambda: 1, f"{name}.{serializer}"),
                "call": client.call(f"{name}.{serializer}"),
            }
            for action, request in requests.items():
                check(f"{serializer} {action} {name}", await outcome(request), expected)
        publishers = [await asyncio.wait_for(heard.get(), 10) for _ in range(2)]
        check(f"{serializer} disclosed", [who is not None for who in publishers], [False, True])
    check("roles", {role for role, *_ in asked}, {"anonymous"})
    check("matches", {match for *_, match in asked}, {"exact", "prefix"})
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed


try:
    failures = asyncio.run(asyncio.wait_for(main(), 60))
finally:
    daemon.kill()
    daemon.wait()
    os.unlink(f.name)
sys.exit(1 if failures else 0)
