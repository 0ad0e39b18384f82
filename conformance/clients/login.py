#!/usr/bin/env python3
"""Logs in with autobahn-python by every method: the right secret, a wrong one, a user that there is not.

    pip install 'autobahn[scram,encryption]==26.10.2'    more than requirements.txt has
    conformance/clients/login.py target/debug/tandem     starts the daemon

By hand, for `run.py` knows no users. Exits 1 if anything is not as it should be. What autobahn says on stderr
after a refusal is its own.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile

from autobahn.asyncio.component import Component
from autobahn.wamp.cryptosign import CryptosignKey

TANDEM = sys.argv[1]

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    ADDRESS = f"127.0.0.1:{probe.getsockname()[1]}"



def made(*purpose):
    return subprocess.run([TANDEM, "hash-password", *purpose], input="wonderland\n", text=True,
                          stdout=subprocess.PIPE, check=True).stdout.strip()


seed = bytes([1]) * 32
key = CryptosignKey.from_bytes(seed)
other = bytes([2]) * 32
plain = "$wamp-cra$d29uZGVybGFuZA=="  # wonderland
config = f'''
[authentication]
anonymous = "never"
[[users]]
name = "alice"
password = "{made()}"
wampcra = "{made('--for', 'wampcra')}"
scram = ["{made('--for', 'wamp-scram')}", "{made('--for', 'scram')}"]
cryptosign = ["{key.public_key()}"]
[[users]]
name = "bob"
wampcra = "{plain}"
'''
with tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False) as f:
    f.write(config)
daemon = subprocess.Popen([TANDEM, "serve", "--listen", ADDRESS, "--config", f.name],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def attempt(method, options, serializer):
    done = asyncio.get_running_loop().create_future()
    component = Component(
        transports=[{"type": "websocket", "url": f"ws://{ADDRESS}/", "max_retries": 0,
                     "serializers": [serializer]}],
        realm="realm1", authentication={method: options})

    @component.on_join
    async def joined(session, details):
        if not done.done():
            done.set_result(f"in as {details.authid}/{details.authrole} by {details.authmethod}")
        session.leave()

    @component.on_leave
    def left(session, details):
        if not done.done():
            done.set_result(f"out: {details.reason}")

    task = component.start()
    try:
        return await asyncio.wait_for(done, 8)
    except asyncio.TimeoutError:
        return "nothing heard"
    finally:
        task.cancel()


async def main():
    await asyncio.sleep(1)
    passed = failed = 0

    def cases(serializer):
        for user, secret in (("alice", "wonderland"), ("alice", "wrong"), ("eve", "wonderland")):
            right = secret == "wonderland" and user != "eve"
            yield "ticket", dict(authid=user, ticket=secret), right
            yield "wampcra", dict(authid=user, secret=secret), right
            yield "scram", dict(authid=user, password=secret, nonce="x", kdf="argon2id-13"), right
        yield "wampcra", dict(authid="bob", secret="wonderland"), True  # without a salt
        yield "wampcra", dict(authid="bob", secret="wrong"), False
        yield "cryptosign", dict(authid="alice", privkey=seed.hex()), True
        yield "cryptosign", dict(privkey=seed.hex()), True
        yield "cryptosign", dict(authid="alice", privkey=other.hex()), False
    for serializer in ("json", "cbor"):
        for method, options, right in cases(serializer):
            shown = {k: v for k, v in options.items() if k in ("authid", "secret", "ticket", "password")}
            try:
                said = await attempt(method, options, serializer)
            except Exception as error:
                said = f"error: {error!r}"
            good = said.startswith("in as") if right else said == "out: wamp.error.authentication_denied"
            passed, failed = passed + good, failed + (not good)
            print("ok  " if good else "FAIL", serializer, method, shown, "->", said, flush=True)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed


try:
    failures = asyncio.run(asyncio.wait_for(main(), 110))
finally:
    daemon.kill()
    daemon.wait()
    os.unlink(f.name)
sys.exit(1 if failures else 0)
