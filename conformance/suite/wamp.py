"""What every WAMP client does alone."""

import asyncio

from .driver import Failure
from .scenario import scenario

OBJECT = {"name": "Ada", "born": 1815, "tags": ["a", "ü", "☃"], "deep": {"none": None, "yes": True, "half": 0.5}}
KINDS = [None, True, False, 0, -1, 1234567890, 0.5, "", "grün ☃ 𝄞", [], {}, [[1], {"a": [None]}], OBJECT]


@scenario("wamp", "joins the realm and leaves it")
async def joins(stage):
    stage.step("join")
    session = await stage.connect()
    stage.true(session.details.get("session"), f"WELCOME gave no session id: {session.details}")
    stage.step("goodbye")
    await session.op("close")
    await session.wait_closed()


@scenario("wamp", "publishes, acknowledged, and receives")
async def publishes(stage):
    topic = stage.name("topic")
    stage.step("two sessions")
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("subscribe")
    await ann.op("subscribe", key="t", topic=topic)
    stage.step("acknowledged publish with args and kwargs")
    await bob.op("publish", topic=topic, args=[OBJECT, "two"], kwargs={"k": 1}, options={"acknowledge": True})
    got = await ann.next("t", "the event")
    stage.equal(got["args"], [OBJECT, "two"], "args")
    stage.equal(got["kwargs"], {"k": 1}, "kwargs")
    stage.step("publish of kwargs alone")
    await bob.op("publish", topic=topic, args=[], kwargs={"only": "k"}, options={"acknowledge": True})
    got = await ann.next("t", "the event")
    stage.equal([got["args"], got["kwargs"]], [[], {"only": "k"}], "args and kwargs")
    if stage.can("unacknowledged"):
        stage.step("publish without acknowledgement")
        await bob.op("publish", topic=topic, args=["quiet"])
        stage.equal((await ann.next("t", "the event"))["args"], ["quiet"], "args")


@scenario("wamp", "does not hear itself, unless it wants to", needs=["exclude_me"])
async def excludes_itself(stage):
    topic = stage.name("topic")
    ann = await stage.connect()
    stage.step("subscribe")
    await ann.op("subscribe", key="t", topic=topic)
    stage.step("publish to itself by default, then with exclude_me false")
    await ann.op("publish", topic=topic, args=["excluded"], options={"acknowledge": True})
    await ann.op("publish", topic=topic, args=["included"], options={"acknowledge": True, "exclude_me": False})
    stage.equal((await ann.next("t", "the event"))["args"], ["included"], "the first event")


@scenario("wamp", "subscribes by prefix and by wildcard")
async def patterns(stage):
    base = stage.name("p")
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("subscribe")
    await ann.op("subscribe", key="prefix", topic=f"{base}.al", match="prefix")
    await ann.op("subscribe", key="wild", topic=f"{base}..end", match="wildcard")
    stage.step("publish: other, prefix, wildcard, both")
    for n, tail in enumerate(["other", "alpha.beta", "x.end", "al.end", "x.y.end"]):
        await bob.op("publish", topic=f"{base}.{tail}", args=[n], options={"acknowledge": True})
    for key, wanted in (("prefix", [(1, "alpha.beta"), (3, "al.end")]), ("wild", [(2, "x.end"), (3, "al.end")])):
        for n, tail in wanted:
            got = await ann.next(key, f"{key} event {n}")
            stage.equal([got["args"], got["topic"]], [[n], f"{base}.{tail}"], f"{key} event")
    stage.step("nothing more")
    await bob.op("publish", topic=f"{base}.al.end", args=["last"], options={"acknowledge": True})
    for key in ("prefix", "wild"):
        stage.equal((await ann.next(key, "the last event"))["args"], ["last"], f"{key} event")


@scenario("wamp", "unsubscribes")
async def unsubscribes(stage):
    topic = stage.name("topic")
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("subscribe to two, unsubscribe one")
    await ann.op("subscribe", key="gone", topic=topic)
    await ann.op("subscribe", key="kept", topic=f"{topic}.kept")
    await ann.op("unsubscribe", key="gone")
    stage.step("publish to both")
    await bob.op("publish", topic=topic, args=[1], options={"acknowledge": True})
    await bob.op("publish", topic=f"{topic}.kept", args=[2], options={"acknowledge": True})
    stage.equal((await ann.next("kept", "the kept event"))["args"], [2], "args")
    stage.equal(len(ann.inboxes["gone"]), 0, "number of events after UNSUBSCRIBED")


@scenario("wamp", "registers, calls, is called")
async def calls(stage):
    procedure = stage.name("echo")
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("register")
    await ann.op("register", key="p", procedure=procedure, behaviour="echo")
    stage.step("call with args and kwargs")
    got = await bob.op("call", procedure=procedure, args=[OBJECT, 2], kwargs={"k": [1]})
    stage.equal([got["args"], got["kwargs"]], [[OBJECT, 2], {"k": [1]}], "args and kwargs")
    stage.step("a second registration")
    refusal = await stage.refused(
        bob.op("register", key="q", procedure=procedure, behaviour="echo"), "the second registration")
    stage.equal(refusal.uri, "wamp.error.procedure_already_exists", "the error")
    stage.step("unregister, then call")
    await ann.op("unregister", key="p")
    refusal = await stage.refused(bob.op("call", procedure=procedure, args=[]), "the call")
    stage.equal(refusal.uri, "wamp.error.no_such_procedure", "the error")


@scenario("wamp", "gets the callee's error, arguments and all")
async def errors(stage):
    procedure = stage.name("fail")
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("register")
    await ann.op("register", key="p", procedure=procedure, behaviour="fail")
    stage.step("call")
    refusal = await stage.refused(bob.op("call", procedure=procedure, args=["why", 7], kwargs={"k": "v"}), "the call")
    stage.equal(refusal.uri, "com.example.error.refused", "the error")
    stage.equal([refusal.args_, refusal.kwargs], [["why", 7], {"k": "v"}], "args and kwargs")


@scenario("wamp", "registers by prefix")
async def registers_prefix(stage):
    base = stage.name("echo")
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("register")
    await ann.op("register", key="p", procedure=f"{base}.on", behaviour="echo", match="prefix")
    stage.step("call below the prefix")
    got = await bob.op("call", procedure=f"{base}.once.more", args=[1])
    stage.equal(got["args"], [1], "args")
    stage.step("call beside it")
    refusal = await stage.refused(bob.op("call", procedure=f"{base}.off", args=[1]), "the call")
    stage.equal(refusal.uri, "wamp.error.no_such_procedure", "the error")


@scenario("wamp", "gets progressive results", needs=["progress"])
async def progressive(stage):
    procedure = stage.name("progress")
    ann, bob = await stage.connect(), await stage.connect()
    stage.step("register")
    await ann.op("register", key="p", procedure=procedure, behaviour="progress")
    stage.step("call asking for progress")
    got = await bob.op("call", procedure=procedure, args=[], progress=True)
    stage.equal([got["progress"], got["args"]], [[1, 2], [3]], "progress and result")
    stage.step("call not asking")
    got = await bob.op("call", procedure=procedure, args=[])
    stage.equal([got["progress"], got["args"]], [[], [3]], "progress and result")


@scenario("wamp", "sends every kind of value, and gets it back")
async def kinds(stage):
    procedure, topic = stage.name("echo"), stage.name("topic")
    ann, bob = await stage.connect(), await stage.connect()
    await ann.op("register", key="p", procedure=procedure, behaviour="echo")
    await ann.op("subscribe", key="t", topic=topic)
    for value in KINDS + [b"", bytes(range(256))]:
        stage.step(f"call with {value!r:.60}")
        got = await bob.op("call", procedure=procedure, args=[value])
        stage.equal(got["args"], [value], "the result")
        stage.step(f"publish {value!r:.60}")
        await bob.op("publish", topic=topic, args=[value], options={"acknowledge": True})
        stage.equal((await ann.next("t", "the event"))["args"], [value], "the event")


@scenario("wamp", "sends 500 KB, and gets it back")
async def large(stage):
    procedure = stage.name("echo")
    ann, bob = await stage.connect(), await stage.connect()
    await ann.op("register", key="p", procedure=procedure, behaviour="echo")
    stage.step("call")
    value = {"text": "0123456789ü" * 45_000}
    got = await bob.op("call", procedure=procedure, args=[value])
    stage.equal(got["args"], [value], "the result")


@scenario("wamp", "calls 200 times at once")
async def many(stage):
    procedure = stage.name("echo")
    ann, bob = await stage.connect(), await stage.connect()
    await ann.op("register", key="p", procedure=procedure, behaviour="echo")
    stage.step("calls")
    got = await asyncio.gather(*(bob.op("call", procedure=procedure, args=[n]) for n in range(200)))
    stage.equal([result["args"] for result in got], [[n] for n in range(200)], "the results")


@scenario("wamp", "is refused a realm that does not exist")
async def no_realm(stage):
    stage.step("join")
    try:
        await stage.connect(realm="no.such.realm")
    except Failure as failure:
        stage.true("no_such_realm" in str(failure), f"refused, but not with no_such_realm: {failure}")
    else:
        raise Failure("joined it")


async def told_of(session, key, who, what):
    """The next event that is about a session: others come and go meanwhile."""
    while True:
        args = (await session.next(key, what))["args"]
        about = args[0]["session"] if isinstance(args[0], dict) else args[0]
        if about == who:
            return args


@scenario("wamp", "asks the meta API, and hears who comes and goes")
async def meta(stage):
    topic, procedure = stage.name("topic"), stage.name("echo")
    ann = await stage.connect()
    stage.step("subscribe to on_join and on_leave")
    await ann.op("subscribe", key="join", topic="wamp.session.on_join")
    await ann.op("subscribe", key="leave", topic="wamp.session.on_leave")

    async def ask(name, *args):
        return (await ann.op("call", procedure=f"wamp.{name}", args=list(args)))["args"][0]

    stage.step("another joins")
    bob = await stage.connect()
    who = bob.details["session"]
    details = (await told_of(ann, "join", who, "on_join"))[0]
    stage.equal(details["authid"], bob.details["authid"], "authid of on_join")
    stage.step("ask about sessions")
    got = await ask("session.get", who)
    stage.equal([got["session"], got["authid"]], [who, details["authid"]], "wamp.session.get")
    stage.true(who in await ask("session.list"), "the session is not in wamp.session.list")
    stage.true(await ask("session.count") >= 2, "wamp.session.count is below 2")
    stage.equal(await ask("session.count", ["no.such.role"]), 0, "wamp.session.count of an unknown role")
    stage.step("ask about a subscription and a registration")
    await bob.op("subscribe", key="t", topic=topic)
    await bob.op("register", key="p", procedure=procedure, behaviour="echo")
    for kind, uri, members in (("subscription", topic, "subscribers"), ("registration", procedure, "callees")):
        number = await ask(f"{kind}.lookup", uri)
        stage.true(number in (await ask(f"{kind}.list"))["exact"], f"the {kind} is not in wamp.{kind}.list")
        stage.equal((await ask(f"{kind}.get", number))["uri"], uri, f"uri of wamp.{kind}.get")
        stage.equal(await ask(f"{kind}.list_{members}", number), [who], f"wamp.{kind}.list_{members}")
        stage.equal(await ask(f"{kind}.count_{members}", number), 1, f"wamp.{kind}.count_{members}")
        found = await ask(f"{kind}.match", uri)
        stage.true(number == found or number in found, f"wamp.{kind}.match did not find it: {found}")
    stage.step("ask about what is not there, and for what is not allowed")
    for name, error in (("session.get", "no_such_session"), ("subscription.get", "no_such_subscription"),
                        ("registration.get", "no_such_registration"), ("session.kill", "not_authorized")):
        refusal = await stage.refused(ask(name, 9007199254740991), f"wamp.{name}")
        stage.equal(refusal.uri, f"wamp.error.{error}", f"the error of wamp.{name}")
    stage.step("the other leaves")
    await bob.op("close")
    args = await told_of(ann, "leave", who, "on_leave")
    stage.equal(args, [who, details["authid"], details["authrole"]], "on_leave")
