"""autobahn-python on asyncio: WAMP over WebSocket and RawSocket, in JSON, MessagePack and CBOR, also in batches."""

import asyncio

from autobahn.asyncio.rawsocket import WampRawSocketClientFactory
from autobahn.asyncio.wamp import ApplicationSession
from autobahn.asyncio.websocket import WampWebSocketClientFactory
from autobahn.wamp import auth
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer
from autobahn.wamp.types import (CallOptions, CallResult, ComponentConfig, EventDetails, PublishOptions,
                                 RegisterOptions, SubscribeOptions)

from lib import Refused, serve

SERIALIZERS = {"json": JsonSerializer, "msgpack": MsgPackSerializer, "cbor": CBORSerializer}


async def answered(deferred):
    try:
        return await deferred
    except ApplicationError as error:
        raise Refused(error.error, error.args, error.kwargs) from error


def echo(*args, details=None, **kwargs):
    return CallResult(*args, **kwargs)


def fail(*args, details=None, **kwargs):
    raise ApplicationError("com.example.error.refused", *args, **kwargs)


def progress(*args, details=None, **kwargs):
    if details.progress:
        for n in (1, 2):
            details.progress(n)
    return CallResult(3)


def authenticate(realm, authid, asked, details=None):
    """A dynamic authenticator that knows dora."""
    if authid != "dora":
        raise ApplicationError("wamp.error.no_such_principal", "there is no such user")
    known = {"authid": "theodora", "role": "guest"}
    if asked["authmethod"] == "ticket":
        if asked["ticket"] != "wonderland":
            raise ApplicationError("com.example.error.invalid_ticket", "the ticket is wrong")
        return known
    key = auth.derive_key(b"wonderland", b"salt of dora", 100, 32)
    return {**known, "secret": key.decode(), "salt": "salt of dora", "iterations": 100, "keylen": 32}


def authenticator(login):
    """What autobahn makes of a login; None for somebody anonymous."""
    method, authid, secret, seed = (login.get(key) for key in ("method", "authid", "secret", "seed"))
    options = {
        "ticket": lambda: {"ticket": secret},
        "wampcra": lambda: {"secret": secret},
        # It wants to be told these two, and does not use them.
        "scram": lambda: {"password": secret, "nonce": "", "kdf": "argon2id-13"},
        "cryptosign": lambda: {"privkey": seed},
    }
    return method and auth.create_authenticator(method, authid=authid, **options[method]())


BEHAVIOURS = {"echo": echo, "fail": fail, "progress": progress, "authenticate": authenticate}


class Session:
    def __init__(self, wamp, details, emit):
        self.wamp, self.emit = wamp, emit
        self.details = {"session": details.session, "realm": details.realm, "authid": details.authid,
                        "authrole": details.authrole, "authmethod": details.authmethod}
        self.subscriptions, self.registrations = {}, {}

    async def subscribe(self, key, topic, match=None):
        def handler(*args, details: EventDetails, **kwargs):
            self.emit({"event": "message", "key": key, "args": args, "kwargs": kwargs, "topic": details.topic})

        options = SubscribeOptions(match=match, details=True)
        self.subscriptions[key] = await answered(self.wamp.subscribe(handler, topic, options))

    async def unsubscribe(self, key):
        await answered(self.subscriptions[key].unsubscribe())

    async def publish(self, topic, args=(), kwargs=None, options=None):
        done = self.wamp.publish(topic, *args, options=PublishOptions(**(options or {})), **(kwargs or {}))
        if done is not None:
            await answered(done)

    async def register(self, key, procedure, behaviour, match=None):
        options = RegisterOptions(match=match, details_arg="details")
        self.registrations[key] = await answered(self.wamp.register(BEHAVIOURS[behaviour], procedure, options))

    async def unregister(self, key):
        await answered(self.registrations[key].unregister())

    async def call(self, procedure, args=(), kwargs=None, progress=False):
        partial = []
        options = CallOptions(on_progress=partial.append) if progress else None
        result = await answered(self.wamp.call(procedure, *args, options=options, **(kwargs or {})))
        # A result of exactly one argument comes as that argument.
        if isinstance(result, CallResult):
            return {"args": result.results, "kwargs": result.kwresults, "progress": partial}
        return {"args": [result], "kwargs": {}, "progress": partial}

    def close(self):
        self.wamp.leave()


async def connect(params, emit):
    loop = asyncio.get_running_loop()
    joined = loop.create_future()

    def failed(why):
        if not joined.done():
            joined.set_exception(ConnectionError(why))

    login = authenticator(params.get("login") or {})

    class Wamp(ApplicationSession):
        def onConnect(self):
            if login:
                authid = params["login"]["authid"]
                self.join(self.config.realm, authmethods=[login.name], authid=authid, authextra=login.authextra)
            else:
                self.join(self.config.realm)

        def onChallenge(self, challenge):
            return login.on_challenge(self, challenge)

        def onWelcome(self, message):
            return login and login.on_welcome(self, message.authextra)

        def onJoin(self, details):
            if not joined.done():
                joined.set_result(details)

        def onLeave(self, details):
            if (login or params.get("authorization")) and not joined.done():
                joined.set_exception(Refused(details.reason, [details.message], {}))
            failed(f"{details.reason}: {details.message}")
            emit({"event": "closed", "reason": details.reason})
            self.disconnect()

        def onDisconnect(self):
            failed("connection lost")

        def onUserError(self, fail, msg):
            pass

    wamp = Wamp(ComponentConfig(realm=params["realm"]))
    format, _, batched = params["serializer"].partition(".")
    serializer = SERIALIZERS[format](batched=bool(batched))
    if params["transport"] in ("rawsocket", "unix"):
        factory = WampRawSocketClientFactory(lambda: wamp, serializer=serializer)
    else:
        headers = {"Authorization": params["authorization"]} if params.get("authorization") else {}
        factory = WampWebSocketClientFactory(lambda: wamp, url=params["url"], serializers=[serializer], headers=headers)
    if params["transport"] == "unix":
        await loop.create_unix_connection(factory, params["path"])
    else:
        await loop.create_connection(factory, params["host"], params["port"])
    return Session(wamp, await joined, emit)


serve("autobahn", connect)
