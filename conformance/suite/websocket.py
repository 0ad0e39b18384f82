"""What a bare WebSocket client sees: the handshake, and single frames. The runner writes the protocol."""

import json

from .scenario import Skip, scenario

HELLO = [1, "realm1", {"roles": {"caller": {}, "callee": {}, "publisher": {}, "subscriber": {}}}]
CONNECT = "CONNECT\naccept-version:1.2\nhost:realm1\n\n\0"


async def dial(stage, url, protocols, **extra):
    session = await stage.connect(url=url, protocols=protocols, **extra)
    stage.equal(session.details["status"], 101, f"the status for {protocols}")
    return session


async def wamp(stage, **extra):
    session = await dial(stage, stage.options.target.wamp, ["wamp.2.json"], **extra)
    await session.op("write", body=json.dumps(HELLO))
    welcome = await message(session)
    stage.equal(welcome[0], 2, f"the type of the first message, {welcome}")
    return session


async def message(session):
    return json.loads((await session.next("frame"))["body"])


async def stomp(stage, connect=CONNECT):
    session = await dial(stage, stage.options.target.stomp, ["v12.stomp"])
    await session.op("write", body=connect)
    connected = (await session.next("frame", "CONNECTED"))["body"]
    stage.true(connected.startswith("CONNECTED\n"), f"not CONNECTED: {connected!r}")
    return session


@scenario("websocket", "is given the first WAMP subprotocol it offers")
async def chooses_wamp(stage):
    for offer in (["wamp.2.json"], ["wamp.2.msgpack", "wamp.2.json"], ["wamp.2.cbor"], ["x.unknown", "wamp.2.json"]):
        stage.step(f"offer {offer}")
        session = await dial(stage, stage.options.target.wamp, offer)
        wanted = next(name for name in offer if name.startswith("wamp"))
        stage.equal(session.details["protocol"], wanted, "the subprotocol")


@scenario("websocket", "is given a STOMP subprotocol")
async def chooses_stomp(stage):
    for offer in (["v12.stomp"], ["v11.stomp"], ["v10.stomp"], ["v12.stomp", "v11.stomp", "v10.stomp"]):
        stage.step(f"offer {offer}")
        session = await dial(stage, stage.options.target.stomp, offer)
        stage.equal(session.details["protocol"], offer[0], "the subprotocol")


@scenario("websocket", "is refused a subprotocol nobody speaks")
async def unknown(stage):
    for url in {stage.options.target.wamp, stage.options.target.stomp}:
        stage.step(f"offer x.unknown to {url}")
        session = await stage.connect(url=url, protocols=["x.unknown"])
        stage.equal(session.details["status"], 400, "the status")


@scenario("websocket", "pings")
async def pings(stage):
    session = await wamp(stage)
    for body in (b"", b"ping", bytes(125)):
        stage.step(f"ping with {len(body)} bytes")
        await session.op("ping", body=body)
        stage.equal((await session.next("pong", "a pong"))["body"], body, "the pong")


@scenario("websocket", "speaks WAMP compressed (permessage-deflate)")
async def compressed(stage):
    stage.step("offer permessage-deflate")
    session = await wamp(stage, compression=True)
    stage.true("permessage-deflate" in session.details["extensions"], "not negotiated")
    stage.step("subscribe, publish 100 KB to itself, three times")
    topic, body = stage.name("topic"), "all the same " * 8_000
    await session.op("write", body=json.dumps([32, 1, {}, topic]))
    stage.equal((await message(session))[:2], [33, 1], "SUBSCRIBED")
    for n in (2, 3, 4):
        await session.op("write", body=json.dumps([16, n, {"exclude_me": False}, topic, [body]]))
        event = await message(session)
        stage.equal([event[0], event[4]], [36, [body]], "the event")


@scenario("websocket", "says goodbye in WAMP, then closes")
async def goodbye(stage):
    session = await wamp(stage)
    stage.step("GOODBYE")
    await session.op("write", body=json.dumps([6, {}, "wamp.close.close_realm"]))
    stage.equal((await message(session))[::2], [6, "wamp.close.goodbye_and_out"], "the answer")
    stage.step("the broker closes")
    stage.equal((await session.wait_closed())["code"], 1000, "the close code")


@scenario("websocket", "is told about WAMP protocol violations: ABORT, then 1002")
async def violations(stage):
    cases = {
        "binary in wamp.2.json": b"[1]",
        "not JSON": "[1,",
        "a second HELLO": json.dumps(HELLO),
        "a message only routers send": json.dumps([2, 1, {}]),
        "an unknown type": "[999]",
    }
    for what, body in cases.items():
        stage.step(what)
        session = await wamp(stage)
        await session.op("write", body=body)
        abort = await message(session)
        stage.equal(abort[::2], [3, "wamp.error.protocol_violation"], "the answer")
        stage.equal((await session.wait_closed())["code"], 1002, "the close code")


@scenario("websocket", "cuts STOMP frames anywhere")
async def cuts(stage):
    session = await dial(stage, stage.options.target.stomp, ["v12.stomp"])
    stage.step("CONNECT, a message for every character")
    for character in CONNECT:
        await session.op("write", body=character)
    connected = (await session.next("frame", "CONNECTED"))["body"]
    stage.true(connected.startswith("CONNECTED\n"), f"not CONNECTED: {connected!r}")
    stage.step("three frames, the last half, in one message")
    topic = f"/topic/{stage.name('topic')}"
    send = f"SEND\ndestination:{topic}\ncontent-type:text/plain\n\ncut\0"
    await session.op("write", body=f"SUBSCRIBE\nid:1\ndestination:{topic}\n\n\0\n{send}\n{send[:20]}")
    for n in (1, 2):
        got = (await session.next("frame", "MESSAGE"))["body"]
        stage.true(got.startswith("MESSAGE\n") and "\n\ncut\0" in got, f"not the MESSAGE: {got!r}")
        if n == 1:
            stage.step("the rest, as binary")
            await session.op("write", body=send[20:].encode())


@scenario("websocket", "hears STOMP heart-beats")
async def beats(stage):
    stage.step("CONNECT with heart-beat:0,300")
    session = await stomp(stage, CONNECT.replace("host:", "heart-beat:0,300\nhost:"))
    stage.step("three beats")
    for _ in range(3):
        beat = (await session.next("frame", "a heart-beat", deadline=2.5))["body"]
        stage.equal(beat.strip() if isinstance(beat, str) else beat, "", "the beat")


@scenario("websocket", "gets a RECEIPT for DISCONNECT before the close")
async def last_receipt(stage):
    session = await stomp(stage)
    stage.step("DISCONNECT with receipt")
    await session.op("write", body="DISCONNECT\nreceipt:bye\n\n\0")
    got = (await session.next("frame", "RECEIPT"))["body"]
    stage.true(got.startswith("RECEIPT\n") and "receipt-id:bye" in got, f"not the RECEIPT: {got!r}")
    stage.equal((await session.wait_closed())["code"], 1000, "the close code")


@scenario("websocket", "is told about malformed STOMP: ERROR, then the close")
async def malformed(stage):
    for what, frame in {
        "an unknown command": "NONSENSE\n\n\0",
        "a header without a colon": "SEND\ndestination\n\n\0",
        "an undefined escape": "SEND\ndestination:/topic/a\nx:\\t\n\n\0",
        "a second CONNECT": CONNECT,
    }.items():
        stage.step(what)
        session = await stomp(stage)
        await session.op("write", body=frame)
        got = (await session.next("frame", "ERROR"))["body"]
        stage.true(got.startswith("ERROR\n") and "\nmessage:" in got, f"not an ERROR: {got!r}")
        await session.wait_closed()


@scenario("websocket", "speaks both languages on one port")
async def both(stage):
    if not stage.options.bridged:
        raise Skip("the languages have different addresses here")
    stage.step("subscribe in WAMP, SEND in STOMP")
    topic = stage.name("topic")
    ann, bob = await wamp(stage), await stomp(stage)
    await ann.op("write", body=json.dumps([32, 1, {}, topic]))
    stage.equal((await message(ann))[:2], [33, 1], "SUBSCRIBED")
    await bob.op("write", body=f'SEND\ndestination:/topic/{topic}\ncontent-type:application/json\n\n{{"a":1}}\0')
    event = await message(ann)
    stage.equal([event[0], event[4]], [36, [{"a": 1}]], "the event")
