"""Logins by every method that a client has: the right secret, a wrong one, and a user that there is not; and by tokens,
in either language and in the handshake of WebSocket.

They have a broker of their own, whose users are made with `tandem hash-password`; and an application, served by
autobahn-python, that it asks about users that it does not know.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time

from .driver import Failure, Refused
from .scenario import Skip, scenario

PASSWORD = "wonderland"
KEY = {"seed": "01" * 32, "pubkey": "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"}
OTHER_KEY = {"seed": "02" * 32, "pubkey": "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"}
DENIED = "wamp.error.authentication_denied"
AUTHENTICATE = "com.example.authenticate"
TOKENS = "the secret that the tokens of this suite are signed with"

CONFIG = """
[authentication]
anonymous = "never"
authenticator = "{authenticate}"
[tokens]
algorithms = ["HS256"]
keys = [{{ algorithm = "HS256", secret_file = "{secret}" }}]
[[users]]
name = "alice"
password = "{password}"
wampcra = "{wampcra}"
scram = ["{wamp_scram}", "{scram}"]
cryptosign = ["{key}"]
[[users]]
name = "bob"
wampcra = "$wamp-cra$d29uZGVybGFuZA=="
[limits]
login_failures_max = 100000
login_failures_per_second_max = 100000
"""


async def config(program, folder):
    """The users of the broker that is logged in to. What it reads besides goes to the folder."""
    secret = folder / "tokens.secret"
    secret.write_text(TOKENS)
    async def made(*purpose):
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(str(program), "hash-password", *purpose, stdin=pipe, stdout=pipe)
        out, _ = await process.communicate(f"{PASSWORD}\n".encode())
        if process.returncode != 0:
            raise Failure(f"hash-password {' '.join(purpose)} ended with {process.returncode}")
        return out.decode().strip()

    methods = ("wampcra", "wamp-scram", "scram")
    hashes = {method.replace("-", "_"): await made("--for", method) for method in methods}
    return CONFIG.format(authenticate=AUTHENTICATE, password=await made(), key=KEY["pubkey"], secret=secret, **hashes)


async def enters(stage, method, authid, who=None, role="user", **secret):
    stage.step(f"{authid} logs in by {method} with what is right")
    session = await stage.connect(login={"method": method, "authid": authid, **secret})
    details = {key: session.details[key] for key in ("realm", "authid", "authrole", "authmethod")}
    stage.equal(details, {"realm": stage.client.params["realm"], "authid": who or authid, "authrole": role,
                          "authmethod": method}, "what WELCOME says")
    return session


async def is_denied(stage, method, authid, **secret):
    stage.step(f"{authid} logs in by {method} with what is wrong")
    try:
        await stage.connect(login={"method": method, "authid": authid, **secret})
    except Refused as refusal:
        if DENIED not in f"{refusal.uri} {refusal}":
            raise Failure(f"it was refused otherwise: {refusal}") from None
        return
    raise Failure("it was let in")


async def by_password(stage, method):
    await enters(stage, method, "alice", secret=PASSWORD)
    await is_denied(stage, method, "alice", secret="looking-glass")
    await is_denied(stage, method, "eve", secret=PASSWORD)


@scenario("login", "logs in by ticket", needs=["ticket"])
async def ticket(stage):
    await by_password(stage, "ticket")


@scenario("login", "logs in by WAMP-CRA, salted", needs=["wampcra"])
async def salted(stage):
    await by_password(stage, "wampcra")


@scenario("login", "logs in by WAMP-CRA, not salted", needs=["wampcra"])
async def wampcra(stage):
    await enters(stage, "wampcra", "bob", secret=PASSWORD)
    await is_denied(stage, "wampcra", "bob", secret="looking-glass")


@scenario("login", "logs in by SCRAM", needs=["scram"])
async def scram(stage):
    await by_password(stage, "scram")


@scenario("login", "logs in by cryptosign", needs=["cryptosign"])
async def cryptosign(stage):
    await enters(stage, "cryptosign", "alice", **KEY)
    await is_denied(stage, "cryptosign", "alice", **OTHER_KEY)
    await is_denied(stage, "cryptosign", "alice", **{**OTHER_KEY, "pubkey": KEY["pubkey"]})
    await is_denied(stage, "cryptosign", "eve", **KEY)


@scenario("login", "logs in as a user of an application, by ticket and WAMP-CRA", needs=["ticket", "wampcra"])
async def dynamic(stage):
    for method in ("ticket", "wampcra"):
        await enters(stage, method, "dora", who="theodora", role="guest", secret=PASSWORD)
        await is_denied(stage, method, "dora", secret="looking-glass")
        await is_denied(stage, method, "nobody", secret=PASSWORD)


# ---- tokens ----

def token(user="joe", seconds=600, secret=TOKENS):
    """A JSON Web Token, as any library would make it."""
    def encoded(content):
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    claims = {"sub": user, "exp": int(time.time()) + seconds}
    message = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{message}.{encoded(hmac.new(secret.encode(), message.encode(), hashlib.sha256).digest())}"


WRONG = "another secret, which is as long as it must be"


@scenario("login", "logs in by a token as its ticket", needs=["ticket"])
async def ticket_token(stage):
    await enters(stage, "ticket", "joe", secret=token())
    await is_denied(stage, "ticket", "joe", secret=token(secret=WRONG))
    await is_denied(stage, "ticket", "alice", secret=token())


@scenario("login", "logs in by a token in the handshake's Authorization")
async def handshake_token(stage):
    if stage.client.driver != "autobahn_py.py" or stage.client.params["transport"] != "websocket":
        raise Skip("its library lets nobody set headers of the handshake, or has none")
    stage.step("joe connects with what is right")
    session = await stage.connect(authorization=f"Bearer {token()}")
    stage.equal(session.details["authid"], "joe", "what WELCOME says")
    stage.step("joe connects with what is wrong")
    try:
        await stage.connect(authorization=f"Bearer {token(secret=WRONG)}")
    except Refused as refusal:
        if DENIED not in f"{refusal.uri} {refusal}":
            raise Failure(f"it was refused otherwise: {refusal}") from None
        return
    raise Failure("it was let in")


async def works(stage, session, key="a"):
    destination = f"/topic/{stage.name('t')}"
    await session.op("subscribe", key=key, destination=destination)
    await session.op("send", destination=destination, body="hello", headers={"content-type": "text/plain"})
    await session.next(key)


async def is_refused(stage, **login):
    if not stage.can("ERROR"):
        return  # It would not live to tell.
    try:
        await stage.connect(**login)
    except Refused:
        return
    raise Failure("it was let in")


@scenario("stomp-login", "logs in by a password")
async def passcode(stage):
    await works(stage, await stage.connect(login="alice", passcode=PASSWORD))
    await is_refused(stage, login="alice", passcode="looking-glass")


@scenario("stomp-login", "logs in by a token as its passcode, and renews it")
async def passcode_token(stage):
    session = await stage.connect(login="joe", passcode=token(seconds=60))
    await works(stage, session)
    stage.step("renews")
    await session.op("send", destination="/session/auth", body=token(), headers={"content-type": "text/plain"})
    await works(stage, session, key="b")
    stage.step("logs in with what is wrong")
    await is_refused(stage, login="joe", passcode=token(secret=WRONG))
    await is_refused(stage, login="joe", passcode=token(seconds=-600))
    await is_refused(stage, login="alice", passcode=token())


@scenario("stomp-login", "logs in by a token, or a password, in the handshake's Authorization")
async def stomp_handshake(stage):
    params = stage.client.params
    can = stage.client.library in ("stompjs", "webstomp-client", "stomp.py") and params["transport"] == "websocket"
    if not can or "sockjs" in params:
        raise Skip("its library lets nobody set headers of the handshake, or has none")
    basic = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
    for authorization in (f"Bearer {token()}", f"Basic {basic}"):
        await works(stage, await stage.connect(authorization=authorization))
    await is_refused(stage, authorization=f"Bearer {token(secret=WRONG)}")
