"""What every STOMP client does alone."""

import asyncio

from .driver import Failure
from .scenario import scenario

JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
SILENCE = 0.4  # seconds; how long nothing must come where only waiting can tell


def text(message):
    body = message["body"]
    return body.decode() if isinstance(body, bytes) else body


async def queue_of(stage, *bodies):
    """A queue holding these messages, sent by a session that has gone again."""
    destination = f"/queue/{stage.name('queue')}"
    sender = await stage.connect()
    for body in bodies:
        await sender.op("send", destination=destination, body=body, headers=TEXT, receipt=True)
    await sender.close()
    return destination


async def drain(stage, session, key, count):
    return [await session.next(key, f"message {n + 1} of {count}") for n in range(count)]


async def silent(stage, session, key, what):
    await asyncio.sleep(SILENCE)
    if session.inboxes[key]:
        raise Failure(f"{what}: came {text(session.inboxes[key][0])!r}")


@scenario("stomp", "connects and disconnects")
async def connects(stage):
    stage.step("connect")
    session = await stage.connect()
    wanted = stage.client.params["version"]
    if wanted != "1.0":
        stage.equal(session.details.get("version"), wanted, "the version in CONNECTED")
    if "transport" in session.details and "sockjs" in stage.client.params:
        # Where SockJS chooses itself, it is in the page that has no WebSocket.
        transport = stage.client.params["sockjs"]["transports"] or "xhr-streaming"
        stage.equal(session.details["transport"], transport, "SockJS's transport")
        stage.equal(session.details["denied"], bool(stage.client.params.get("denied")), "whether there is no WebSocket")
    stage.step("disconnect")
    await session.op("close")


@scenario("stomp", "sends to a topic and receives, with receipts")
async def topic(stage):
    destination = f"/topic/{stage.name('topic')}"
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("SUBSCRIBE with receipt")
    await ann.op("subscribe", key="t", destination=destination, receipt=True)
    stage.step("SEND with receipt")
    headers = TEXT | {"x-note": "a user header"}
    await bob.op("send", destination=destination, body="grün ☃", headers=headers, receipt=True)
    got = await ann.next("t")
    stage.equal(text(got), "grün ☃", "the body")
    for name, value in (headers | {"destination": destination}).items():
        stage.equal(got["headers"].get(name), value, f"header {name}")
    stage.true(got["headers"].get("message-id"), "no message-id")
    stage.true("receipt" not in got["headers"], "the publisher's receipt header reached the subscriber")
    stage.step("a publisher hears itself")
    await ann.op("send", destination=destination, body="mine", headers=TEXT)
    stage.equal(text(await ann.next("t")), "mine", "the body")


@scenario("stomp", "escapes what a header cannot hold", needs=["escapes"])
async def escapes(stage):
    destination = f"/topic/{stage.name('topic')}"
    session = await stage.connect()
    await session.op("subscribe", key="t", destination=destination, receipt=True)
    stage.step("SEND with colon, backslash and line feed in a header")
    # Not a backslash before c, n or r: stompjs reads an escaped one as half of another escape.
    odd = "a:b\\d\ne"
    await session.op("send", destination=destination, body="x", headers={"x-odd": odd})
    stage.equal((await session.next("t"))["headers"].get("x-odd"), odd, "the header")


@scenario("stomp", "subscribes by * and by #")
async def patterns(stage):
    base = f"/topic/{stage.name('p')}"
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("subscribe")
    await ann.op("subscribe", key="star", destination=f"{base}.*.end", receipt=True)
    await ann.op("subscribe", key="tail", destination=f"{base}.a.#", receipt=True)
    stage.step("send")
    tails = ["other", "x.end", "a", "a.b.c", "a.end", "x.y.end", "ab"]
    for tail in tails:
        await bob.op("send", destination=f"{base}.{tail}", body=tail, headers=TEXT, receipt=True)
    # A 1.0 MESSAGE names no subscription, only the topic: there it is told apart by what it says.
    by_key = {"star": ["x.end", "a.end"], "tail": ["a", "a.b.c", "a.end"]}
    if stage.client.params["version"] == "1.0":
        await ann.until(lambda: sum(map(len, ann.inboxes.values())) >= 5, "5 messages")
        got = sorted(text(message) for inbox in ann.inboxes.values() for message in inbox)
        stage.equal(got, sorted(sum(by_key.values(), [])), "what came")
        return
    for key, wanted in by_key.items():
        got = [text(message) for message in await drain(stage, ann, key, len(wanted))]
        stage.equal(got, wanted, f"what came to {key}")
    stage.step("nothing more")
    await bob.op("send", destination=f"{base}.a.end", body="last", headers=TEXT, receipt=True)
    for key in by_key:
        stage.equal(text(await ann.next(key)), "last", f"the next message of {key}")


@scenario("stomp", "unsubscribes")
async def unsubscribes(stage):
    destination = f"/topic/{stage.name('topic')}"
    session = await stage.connect()
    stage.step("subscribe to two, unsubscribe one")
    await session.op("subscribe", key="gone", destination=destination, receipt=True)
    await session.op("unsubscribe", key="gone")
    await session.op("subscribe", key="kept", destination=f"{destination}.kept", receipt=True)
    stage.step("send to both")
    await session.op("send", destination=destination, body="1", headers=TEXT)
    await session.op("send", destination=f"{destination}.kept", body="2", headers=TEXT)
    stage.equal(text(await session.next("kept")), "2", "the body")
    stage.equal(len(session.inboxes["gone"]), 0, "number of messages after UNSUBSCRIBE")


@scenario("stomp", "sends to a queue and consumes, in order")
async def queue(stage):
    stage.step("SEND before anybody subscribes")
    destination = await queue_of(stage, "1", "2", "3")
    stage.step("SUBSCRIBE")
    session = await stage.connect()
    await session.op("subscribe", key="q", destination=destination, receipt=True)
    got = [text(message) for message in await drain(stage, session, "q", 3)]
    stage.equal(got, ["1", "2", "3"], "what came")


@scenario("stomp", "competes with another consumer")
async def competes(stage):
    destination = f"/queue/{stage.name('queue')}"
    ann, bob, sender = await stage.connect(), await stage.connect(), await stage.connect()
    for session in (ann, bob):
        await session.op("subscribe", key="q", destination=destination, headers={"ack": "client"}, receipt=True)
    stage.step("20 messages for two")
    for n in range(1, 21):  # Net::Stomp takes the body 0 for none
        await sender.op("send", destination=destination, body=str(n), headers=TEXT, receipt=True)

    def got():
        return [int(text(message)) for session in (ann, bob) for message in session.inboxes["q"]]
    end = asyncio.get_running_loop().time() + 5
    while len(got()) < 20 and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.02)
    stage.equal(sorted(got()), list(range(1, 21)), "what the two got")
    stage.true(ann.inboxes["q"] and bob.inboxes["q"], "one of them got everything")


async def redelivery(stage, mode, acknowledge, again):
    """Takes three messages in a client mode, acknowledges one, leaves, and looks at what is still there."""
    stage.step("SEND three")
    destination = await queue_of(stage, "1", "2", "3")
    stage.step(f"SUBSCRIBE with ack:{mode}, ACK number {acknowledge}, leave")
    session = await stage.connect()
    await session.op("subscribe", key="q", destination=destination, headers={"ack": mode}, receipt=True)
    messages = await drain(stage, session, "q", 3)
    await session.op("ack", handle=messages[acknowledge - 1]["handle"])
    # A receipt says that what was sent before it, the ACK, has been received.
    await session.op("send", destination=f"/topic/{stage.name('fence')}", body="", headers=TEXT, receipt=True)
    await session.close()
    stage.step("what is left, marked redelivered")
    session = await stage.connect()
    await session.op("subscribe", key="q", destination=destination, headers={"ack": mode}, receipt=True)
    left = await drain(stage, session, "q", len(again))
    stage.equal([text(message) for message in left], again, "what was left")
    for message in left:
        stage.equal(message["headers"].get("redelivered"), "true", "header redelivered")
    await silent(stage, session, "q", "more than was left")


@scenario("stomp", "acknowledges one by one (client-individual)")
async def client_individual(stage):
    await redelivery(stage, "client-individual", 2, ["1", "3"])


@scenario("stomp", "acknowledges all up to one (client)")
async def client_cumulative(stage):
    await redelivery(stage, "client", 2, ["3"])


@scenario("stomp", "refuses a message, and gets it again", needs=["nack"])
async def nack(stage):
    destination = await queue_of(stage, "again")
    session = await stage.connect()
    stage.step("SUBSCRIBE and NACK")
    await session.op("subscribe", key="q", destination=destination, headers={"ack": "client-individual"}, receipt=True)
    first = await session.next("q")
    await session.op("nack", handle=first["handle"])
    stage.step("the redelivery")
    second = await session.next("q", "the redelivery")
    stage.equal(text(second), "again", "the body")
    stage.equal(second["headers"].get("redelivered"), "true", "header redelivered")
    stage.step("ACK, leave, and see the queue empty")
    await session.op("ack", handle=second["handle"])
    await session.op("send", destination=f"/topic/{stage.name('fence')}", body="", headers=TEXT, receipt=True)
    await session.close()
    session = await stage.connect()
    await session.op("subscribe", key="q", destination=destination, headers={"ack": "client-individual"}, receipt=True)
    await silent(stage, session, "q", "the acknowledged message came again")


@scenario("stomp", "is cut off, and its messages go to another", needs=["drop"])
async def cut_off(stage):
    destination = await queue_of(stage, "1", "2")
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("SUBSCRIBE, and hold both")
    await ann.op("subscribe", key="q", destination=destination, headers={"ack": "client-individual"}, receipt=True)
    await drain(stage, ann, "q", 2)
    await bob.op("subscribe", key="q", destination=destination, headers={"ack": "client-individual"}, receipt=True)
    await silent(stage, bob, "q", "what another holds")
    stage.step("the connection ends without DISCONNECT")
    await ann.op("drop")
    left = await drain(stage, bob, "q", 2)
    stage.equal([text(message) for message in left], ["1", "2"], "what the other got")
    for message in left:
        stage.equal(message["headers"].get("redelivered"), "true", "header redelivered")


@scenario("stomp", "chooses by a selector")
async def selector(stage):
    destination = f"/queue/{stage.name('queue')}"
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("SUBSCRIBE with a selector, and SEND")
    await ann.op("subscribe", key="q", destination=destination, headers={"selector": "colour = 'red'"}, receipt=True)
    for colour, body in (("red", "1"), ("blue", "2"), ("red", "3")):
        await bob.op("send", destination=destination, body=body, headers=TEXT | {"colour": colour}, receipt=True)
    got = [text(message) for message in await drain(stage, ann, "q", 2)]
    stage.equal(got, ["1", "3"], "what was selected")
    stage.step("the rest is for others")
    await bob.op("subscribe", key="q", destination=destination, receipt=True)
    stage.equal(text(await bob.next("q")), "2", "what was left")


@scenario("stomp", "has a durable subscription")
async def durable(stage):
    destination = f"/topic/{stage.name('topic')}"
    name = {"durable-subscription-name": stage.name("durable")}
    stage.step("SUBSCRIBE, leave")
    session = await stage.connect()
    await session.op("subscribe", key="t", destination=destination, headers=name, receipt=True)
    await session.close()
    stage.step("SEND meanwhile, and come back")
    sender = await stage.connect()
    await sender.op("send", destination=destination, body="meanwhile", headers=TEXT, receipt=True)
    session = await stage.connect()
    await session.op("subscribe", key="t", destination=destination, headers=name, receipt=True)
    got = await session.next("t")
    stage.equal(text(got), "meanwhile", "the body")
    stage.equal(got["headers"].get("destination"), destination, "header destination")


@scenario("stomp", "looks into a queue without taking")
async def browser(stage):
    destination = await queue_of(stage, "1", "2")
    stage.step("SUBSCRIBE with browser:true")
    session = await stage.connect()
    await session.op("subscribe", key="b", destination=destination, headers={"browser": "true"}, receipt=True)
    got = await drain(stage, session, "b", 3)
    stage.equal([text(message) for message in got], ["1", "2", ""], "what was seen")
    stage.equal(got[2]["headers"].get("browser"), "end", "header browser of the last one")
    stage.step("it is still there")
    other = await stage.connect()
    await other.op("subscribe", key="q", destination=destination, receipt=True)
    stage.equal([text(message) for message in await drain(stage, other, "q", 2)], ["1", "2"], "what was left")


@scenario("stomp", "commits and aborts transactions", needs=["transactions"])
async def transactions(stage):
    destination = f"/topic/{stage.name('topic')}"
    ann, bob = await stage.connect(), await stage.connect()
    await ann.op("subscribe", key="t", destination=destination, receipt=True)
    stage.step("BEGIN, SEND twice; nothing may come before COMMIT")
    await bob.op("begin", transaction="tx1")
    for body in ("1", "2"):
        await bob.op("send", destination=destination, body=body, headers=TEXT | {"transaction": "tx1"})
    await bob.op("send", destination=destination, body="outside", headers=TEXT, receipt=True)
    stage.equal(text(await ann.next("t")), "outside", "the first message")
    await silent(stage, ann, "t", "before COMMIT")
    stage.step("COMMIT")
    await bob.op("commit", transaction="tx1")
    got = await drain(stage, ann, "t", 2)
    stage.equal([text(message) for message in got], ["1", "2"], "what came at COMMIT")
    stage.true("transaction" not in got[0]["headers"], "the transaction header reached the subscriber")
    stage.step("ABORT")
    await bob.op("begin", transaction="tx1")
    await bob.op("send", destination=destination, body="aborted", headers=TEXT | {"transaction": "tx1"})
    await bob.op("abort", transaction="tx1")
    await bob.op("send", destination=destination, body="after", headers=TEXT)
    stage.equal(text(await ann.next("t")), "after", "the message after ABORT")


@scenario("stomp", "takes an ACK back by ABORT", needs=["transactions"])
async def transactional_ack(stage):
    destination = await queue_of(stage, "kept", "done")
    session = await stage.connect()
    await session.op("subscribe", key="q", destination=destination, headers={"ack": "client-individual"}, receipt=True)
    kept, done = await drain(stage, session, "q", 2)
    for transaction, message, end in (("tx1", kept, "abort"), ("tx2", done, "commit")):
        stage.step(f"ACK in a transaction, {end}")
        await session.op("begin", transaction=transaction)
        await session.op("ack", handle=message["handle"], headers={"transaction": transaction})
        await session.op(end, transaction=transaction)
    await session.op("send", destination=f"/topic/{stage.name('fence')}", body="", headers=TEXT, receipt=True)
    await session.close()
    stage.step("what is left")
    session = await stage.connect()
    await session.op("subscribe", key="q", destination=destination, headers={"ack": "client-individual"}, receipt=True)
    stage.equal(text(await session.next("q")), "kept", "what was left")
    await silent(stage, session, "q", "more than was left")


@scenario("stomp", "stays connected by heart-beats", needs=["heart-beat"])
async def heartbeats(stage):
    stage.step("CONNECT with heart-beat:500,500")
    session = await stage.connect(heartbeat=[500, 500])
    beats = session.details.get("heart-beat", "0,0").split(",")
    stage.true(len(beats) == 2 and int(beats[0]) > 0, f"the broker will not beat: {beats}")
    stage.step("five intervals of silence, which the client checks too")
    try:
        await session.until(lambda: session.closed, "", deadline=2.5)
        raise Failure(f"closed meanwhile: {session.closed}")
    except Failure as failure:
        stage.true("nothing within" in str(failure), str(failure))
    stage.step("still there")
    destination = f"/topic/{stage.name('topic')}"
    await session.op("subscribe", key="t", destination=destination, receipt=True)
    await session.op("send", destination=destination, body="alive", headers=TEXT)
    stage.equal(text(await session.next("t")), "alive", "the body")


@scenario("stomp", "gets ERROR for bad input, then the end", needs=["ERROR"])
async def error(stage):
    session = await stage.connect()
    stage.step("SEND to a destination of no kind")
    try:
        await session.op("send", destination="/nowhere/at/all", body="x", headers=TEXT)
    except Failure:
        pass  # a library may fail the operation as well
    problem = await session.wait_problem()
    stage.equal(problem["kind"], "error", "what came")
    stage.true(problem["headers"].get("message"), f"ERROR without a message header: {problem}")
    stage.step("the broker closes")
    await session.wait_closed()


@scenario("stomp", "gets an ERROR that names its receipt", needs=["ERROR"])
async def error_receipt(stage):
    session = await stage.connect()
    stage.step("SEND with receipt to a destination of no kind")
    refusal = asyncio.ensure_future(session.op("send", destination="/nowhere/at/all", body="x", receipt=True))
    problem = await session.wait_problem()
    await asyncio.gather(refusal, return_exceptions=True)
    stage.true(problem["headers"].get("receipt-id"), f"no receipt-id in ERROR: {problem['headers']}")


@scenario("stomp", "sends 200 KB, and gets it back")
async def large(stage):
    destination = f"/topic/{stage.name('topic')}"
    session = await stage.connect()
    await session.op("subscribe", key="t", destination=destination, receipt=True)
    # Binary webstomp-client spreads a message over the arguments of one function call.
    size = 6_000 if stage.client.library == "webstomp-client" else 18_000
    body = "0123456789ü" * size
    stage.step("SEND")
    await session.op("send", destination=destination, body=body, headers=TEXT)
    stage.equal(text(await session.next("t")), body, "the body")


@scenario("stomp", "sends NUL and line feeds in a body", needs=["NUL"])
async def nul(stage):
    destination = f"/topic/{stage.name('topic')}"
    session = await stage.connect()
    await session.op("subscribe", key="t", destination=destination, receipt=True)
    for body in ("\0", "a\0b\n\n\0", "\n", ""):
        stage.step(f"SEND {body!r}")
        await session.op("send", destination=destination, body=body, headers=TEXT)
        stage.equal(text(await session.next("t")), body, "the body")


@scenario("stomp", "sends bytes that are not UTF-8", needs=["bytes"])
async def binary(stage):
    destination = f"/topic/{stage.name('topic')}"
    session = await stage.connect()
    await session.op("subscribe", key="t", destination=destination, receipt=True)
    stage.step("SEND")
    body = bytes(range(256))
    await session.op("send", destination=destination, body=body, headers={"content-type": "application/octet-stream"})
    stage.equal((await session.next("t"))["body"], body, "the body")
