"""Logins by every method that a client has: the right secret, a wrong one, and a user that there is not.

They have a broker of their own, whose users are made with `tandem hash-password`; and an application, served by
autobahn-python, that it asks about users that it does not know.
"""

import asyncio

from .driver import Failure, Refused
from .scenario import scenario

PASSWORD = "wonderland"
KEY = {"seed": "01" * 32, "pubkey": "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"}
OTHER_KEY = {"seed": "02" * 32, "pubkey": "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"}
DENIED = "wamp.error.authentication_denied"
AUTHENTICATE = "com.example.authenticate"

CONFIG = """
[authentication]
anonymous = "never"
authenticator = "{authenticate}"
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


async def config(program):
    """The users of the broker that is logged in to."""
    async def made(*purpose):
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(str(program), "hash-password", *purpose, stdin=pipe, stdout=pipe)
        out, _ = await process.communicate(f"{PASSWORD}\n".encode())
        if process.returncode != 0:
            raise Failure(f"hash-password {' '.join(purpose)} ended with {process.returncode}")
        return out.decode().strip()

    methods = ("wampcra", "wamp-scram", "scram")
    hashes = {method.replace("-", "_"): await made("--for", method) for method in methods}
    return CONFIG.format(authenticate=AUTHENTICATE, password=await made(), key=KEY["pubkey"], **hashes)


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
