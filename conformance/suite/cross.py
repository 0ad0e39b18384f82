"""Everybody with everybody: what one client sends, every other must get, exactly.

Here both languages look alike: `Peer` holds the mapping between them, as a client's author reads it
in the broker's documentation.
"""

import asyncio
import json
import time

from .driver import Failure, Refused, Session
from .report import FAILED, PASSED, SKIPPED, Row
from .scenario import Stage
from .values import same, short

PLAIN = {"an object": {"name": "Ada ☃", "born": 1815, "list": [1, "two", None, True, 0.5, {"deep": []}]},
         "a string": "grün: \"quoted\" \\ 𝄞\nsecond line",
         "an integer": 1234567890}
BYTES = {"bytes": bytes(range(256))}
ERROR = "com.example.error.refused"


class WampPeer:
    def __init__(self, session):
        self.session = session

    async def listen(self, key, topic):
        await self.session.op("subscribe", key=key, topic=topic)

    async def publish(self, topic, value):
        await self.session.op("publish", topic=topic, args=[value], options={"acknowledge": True})

    async def hear(self, key):
        got = await self.session.next(key, "the event")
        if got["kwargs"] or len(got["args"]) != 1:
            raise Failure(f"wanted one argument, got args {short(got['args'])} kwargs {short(got['kwargs'])}")
        return got["args"][0]

    async def serve(self, key, procedure, behaviour):
        await self.session.op("register", key=key, procedure=procedure, behaviour=behaviour)

    async def call(self, procedure, value):
        got = await self.session.op("call", procedure=procedure, args=[value])
        if got["kwargs"] or len(got["args"]) != 1:
            raise Failure(f"wanted one result, got args {short(got['args'])} kwargs {short(got['kwargs'])}")
        return got["args"][0]

    async def call_error(self, procedure, value):
        try:
            got = await self.session.op("call", procedure=procedure, args=[value])
        except Refused as refusal:
            return refusal.uri
        raise Failure(f"no error but {short(got)}")

    def stop(self):
        pass


class StompPeer:
    """A value is a body with a content-type. A call is a SEND with a reply-to; a procedure, a subscription."""

    def __init__(self, session):
        self.session, self.calls, self.serving = session, 0, []

    @staticmethod
    def encode(value):
        if isinstance(value, bytes):
            return {"body": value, "headers": {"content-type": "application/octet-stream"}}
        if isinstance(value, str):
            return {"body": value, "headers": {"content-type": "text/plain"}}
        return {"body": json.dumps(value), "headers": {"content-type": "application/json"}}

    @staticmethod
    def decode(message):
        body, headers = message["body"], message["headers"]
        raw = body if isinstance(body, bytes) else body.encode()
        kind = headers.get("content-type", "").split(";")[0].strip()
        if headers.get("x-wamp-payload"):
            raise Failure(f"wanted one value, got x-wamp-payload:{headers['x-wamp-payload']} {short(raw)}")
        try:
            if kind == "application/json":
                return json.loads(raw)
            return raw.decode() if kind.startswith("text/") else raw
        except ValueError as error:
            raise Failure(f"content-type:{kind}, but the body is {short(raw)}: {error}") from None

    async def listen(self, key, topic):
        await self.session.op("subscribe", key=key, destination=f"/topic/{topic}", receipt=True)

    async def publish(self, topic, value):
        await self.session.op("send", destination=f"/topic/{topic}", receipt=True, **self.encode(value))

    async def hear(self, key):
        return self.decode(await self.session.next(key, "the message"))

    async def serve(self, key, procedure, behaviour):
        await self.session.op("subscribe", key=key, destination=f"/procedure/{procedure}", receipt=True)
        self.serving.append(asyncio.create_task(self._answer(key, behaviour)))

    async def _answer(self, key, behaviour):
        while True:
            call = await self.session.next(key, "an invocation", deadline=3600)
            asked = call["headers"]
            headers = {name: asked[name] for name in ("correlation-id", "content-type") if name in asked}
            if behaviour == "fail":
                headers["error"] = ERROR
            await self.session.op("send", destination=asked["reply-to"], body=call["body"], headers=headers)

    async def _reply(self, procedure, value):
        self.calls += 1
        number, reply_to, sent = f"call-{self.calls}", "/temp-queue/replies", self.encode(value)
        sent["headers"] |= {"reply-to": reply_to, "correlation-id": number}
        await self.session.op("send", destination=f"/call/{procedure}", **sent)
        while True:
            reply = await self.session.next(reply_to, "the reply")
            # An earlier call that failed by its deadline may be answered yet.
            if reply["headers"].get("correlation-id") == number:
                return reply

    async def call(self, procedure, value):
        reply = await self._reply(procedure, value)
        if "error" in reply["headers"]:
            raise Failure(f"error {reply['headers']['error']}: {short(reply['body'])}")
        return self.decode(reply)

    async def call_error(self, procedure, value):
        reply = await self._reply(procedure, value)
        if "error" not in reply["headers"]:
            raise Failure(f"no error but {short(reply['body'])}")
        return reply["headers"]["error"]

    def stop(self):
        for task in self.serving:
            task.cancel()


class Cross:
    def __init__(self, casts, options, report):
        """`casts`: pairs of a client and its driver."""
        self.casts, self.options, self.report = casts, options, report
        self.peers = {}  # client -> peer

    async def run(self):
        for client, driver in self.casts:
            session = Session(client, driver)
            try:
                await session.connect(**self.options.logins(client))
            except Failure as failure:
                self.row(client, "connects for the matrix", FAILED, str(failure))
                continue
            self.peers[client] = (WampPeer if client.language == "wamp" else StompPeer)(session)
        try:
            await self.topics()
            if self.options.bridged:
                await self.procedures([client for client in self.peers])
            else:
                await self.procedures([client for client in self.peers if client.language == "wamp"])
            await self.queues()
            if self.options.bridged:
                await self.mappings()
        finally:
            for peer in self.peers.values():
                peer.stop()
                await peer.session.close()
                peer.session.forget()

    def row(self, client, what, result, why="", began=None):
        driver = dict(self.casts)[client]
        self.report.add(Row.of(client, driver, what, result, why, time.monotonic() - began if began else 0))

    def reach(self, client, others):
        """Where two brokers stand in for one, a language reaches only itself."""
        return [other for other in others if self.options.bridged or other.language == client.language]

    async def topics(self):
        """Every client publishes; every client, itself not among them, must hear the same values in order."""
        names = {client: Stage.run + f".cross.{n}" for n, client in enumerate(self.peers)}
        topics = {client: {"plain": f"conformance.{name}.plain", "bytes": f"conformance.{name}.bytes"}
                  for client, name in names.items()}
        for listener in list(self.peers):
            await self.listen_all(listener, topics)
        for speaker in self.peers:
            await self.publish_all(speaker, "plain", PLAIN, topics[speaker]["plain"])
        for speaker in self.peers:
            await self.publish_all(speaker, "bytes", BYTES, topics[speaker]["bytes"])

    async def listen_all(self, listener, topics):
        try:
            for speaker in self.reach(listener, topics):
                for kind, topic in topics[speaker].items():
                    if speaker is not listener and not (kind == "bytes" and "bytes" in listener.lacks):
                        await self.peers[listener].listen(topic, topic)
        except Failure as failure:
            # Without its subscriptions it would only fail everybody else's rows.
            self.row(listener, "subscribes for the matrix", FAILED, str(failure))
            peer = self.peers.pop(listener)
            await peer.session.close()

    async def publish_all(self, speaker, kind, values, topic):
        began = time.monotonic()
        what = f"publishes {', '.join(values)}"
        if kind == "bytes" and "bytes" in speaker.lacks:
            return self.row(speaker, what, SKIPPED, speaker.lacks["bytes"])
        listeners = [client for client in self.reach(speaker, self.peers)
                     if client is not speaker and not (kind == "bytes" and "bytes" in client.lacks)]
        try:
            for value in values.values():
                await self.peers[speaker].publish(topic, value)
        except Failure as failure:
            return self.row(speaker, what, FAILED, str(failure), began)

        async def hear(listener):
            for name, value in values.items():
                got = await self.peers[listener].hear(topic)
                if not same(got, value):
                    raise Failure(f"{name} is {short(got)}, wanted {short(value)}")

        await self.gather(speaker, what, "heard by", listeners, hear, began)

    async def gather(self, client, what, by, others, act, began):
        """One row for one client against all others; it fails if one of them does."""
        outcomes = await asyncio.gather(*map(act, others), return_exceptions=True)
        wrong = [f"{other.name}: {outcome}" for other, outcome in zip(others, outcomes)
                 if isinstance(outcome, Exception)]
        self.row(client, f"{what}; {by} {len(others)}", FAILED if wrong else PASSED, "\n    ".join(wrong), began)

    async def procedures(self, everyone):
        """Every client registers; every client calls, itself too, and must get back what it sent."""
        for callee in everyone:
            procedure = f"conformance.{Stage.run}.procedure.{everyone.index(callee)}"
            peer, began = self.peers[callee], time.monotonic()
            try:
                await peer.serve(f"{procedure}.echo", f"{procedure}.echo", "echo")
                await peer.serve(f"{procedure}.fail", f"{procedure}.fail", "fail")
            except Failure as failure:
                self.row(callee, "registers", FAILED, str(failure), began)
                continue

            async def call(caller):
                values = PLAIN if "bytes" in caller.lacks or "bytes" in callee.lacks else PLAIN | BYTES
                for name, value in values.items():
                    got = await self.peers[caller].call(f"{procedure}.echo", value)
                    if not same(got, value):
                        raise Failure(f"{name} came back as {short(got)}, wanted {short(value)}")
                uri = await self.peers[caller].call_error(f"{procedure}.fail", "why")
                if uri != ERROR:
                    raise Failure(f"the error is {uri}, wanted {ERROR}")

            await self.gather(callee, "answers and refuses calls", "called by", everyone, call, began)

    async def queues(self):
        """Every STOMP client consumes what every STOMP client sent to its queue."""
        everyone = [client for client in self.peers if client.language == "stomp"]
        for number, consumer in enumerate(everyone):
            began, queue = time.monotonic(), f"/queue/conformance.{Stage.run}.queue.{number}"
            what = f"consumes a queue; fed by {len(everyone)}"
            try:
                for n, producer in enumerate(everyone):
                    sent = StompPeer.encode({"from": n, "text": "ü"})
                    await self.peers[producer].session.op("send", destination=queue, receipt=True, **sent)
                session = self.peers[consumer].session
                await session.op("subscribe", key=queue, destination=queue, receipt=True, headers={"ack": "client"})
                for n in range(len(everyone)):
                    message = await session.next(queue, f"message {n + 1} of {len(everyone)}")
                    got, wanted = StompPeer.decode(message), {"from": n, "text": "ü"}
                    if not same(got, wanted):
                        raise Failure(f"message {n + 1} is {short(got)}, wanted {short(wanted)}")
                    await session.op("ack", handle=message["handle"])
                self.row(consumer, what, PASSED, began=began)
            except Failure as failure:
                self.row(consumer, what, FAILED, str(failure), began)

    async def mappings(self):
        """Every STOMP client with one WAMP client: what is more than one plain value."""
        wamp = next((peer for client, peer in self.peers.items() if client.language == "wamp"), None)
        for number, client in enumerate(client for client in self.peers if client.language == "stomp" and wamp):
            for title, act in (("hears WAMP's args and kwargs; x-wamp-payload:full", self.wamp_to_stomp),
                               ("says args, kwargs, full by x-wamp-payload", self.stomp_to_wamp),
                               ("subscribes by * and # to what WAMP publishes", self.stomp_patterns),
                               ("is heard by WAMP's prefix and wildcard", self.wamp_patterns),
                               ("calls what nobody registered", self.no_procedure)):
                began, base = time.monotonic(), f"conformance.{Stage.run}.map{number}.{act.__name__}"
                try:
                    await act(wamp.session, self.peers[client], base)
                    self.row(client, title, PASSED, began=began)
                except Failure as failure:
                    self.row(client, title, FAILED, str(failure), began)

    async def wamp_to_stomp(self, wamp, peer, topic):
        await peer.listen(topic, topic)
        for args, kwargs in (([1, "zwei"], {}), ([], {"k": [1]}), ([{"a": 1}], {"k": None}), ([], {})):
            await wamp.op("publish", topic=topic, args=args, kwargs=kwargs, options={"acknowledge": True})
            message = await peer.session.next(topic, "the message")
            header = message["headers"].get("x-wamp-payload")
            if not args and not kwargs:
                # Nothing is an empty body, not the full form of nothing.
                if header or message["body"]:
                    raise Failure(f"x-wamp-payload is {header} and the body {short(message['body'])}, for nothing")
                continue
            if header != "full":
                raise Failure(f"x-wamp-payload is {header}, wanted full, for args {args} kwargs {kwargs}")
            got = json.loads(message["body"])
            if not same([got.get("args", []), got.get("kwargs", {})], [args, kwargs]):
                raise Failure(f"the body is {short(got)}, wanted args {args} kwargs {kwargs}")

    async def stomp_to_wamp(self, wamp, peer, topic):
        await wamp.op("subscribe", key=topic, topic=topic)
        for form, body, args, kwargs in (("args", [1, "zwei"], [1, "zwei"], {}),
                                         ("kwargs", {"k": [1]}, [], {"k": [1]}),
                                         ("full", {"args": [1], "kwargs": {"k": "v"}}, [1], {"k": "v"}),
                                         (None, [1, 2], [[1, 2]], {})):
            sent = StompPeer.encode(body)
            if form:
                sent["headers"]["x-wamp-payload"] = form
            await peer.session.op("send", destination=f"/topic/{topic}", receipt=True, **sent)
            got = await wamp.next(topic, "the event")
            if not same([got["args"], got["kwargs"]], [args, kwargs]):
                raise Failure(f"x-wamp-payload:{form} gave args {short(got['args'])} kwargs {short(got['kwargs'])}")

    async def stomp_patterns(self, wamp, peer, base):
        for pattern, tails in (("*.end", ["x.end"]), ("a.#", ["a", "a.b.c"])):
            # A topic of its own for each: a 1.0 MESSAGE tells only the topic, not the subscription.
            key = f"{base}.{len(tails)}"
            await peer.listen(key, f"{key}.{pattern}")
            for tail in ("other", "x.end", "a", "ab", "a.b.c"):
                await wamp.op("publish", topic=f"{key}.{tail}", args=[tail], options={"acknowledge": True})
            for tail in tails:
                inboxes = [key, f"/topic/{key}.{tail}"]
                await peer.session.until(lambda: any(peer.session.inboxes[inbox] for inbox in inboxes), "the message")
                got = next(peer.session.inboxes[inbox].popleft() for inbox in inboxes if peer.session.inboxes[inbox])
                told = [StompPeer.decode(got), got["headers"]["destination"]]
                if told != [tail, f"/topic/{key}.{tail}"]:
                    raise Failure(f"{pattern} heard {told}, wanted {tail}")

    async def wamp_patterns(self, wamp, peer, base):
        await wamp.op("subscribe", key=f"{base}.prefix", topic=f"{base}.al", match="prefix")
        await wamp.op("subscribe", key=f"{base}.wild", topic=f"{base}..end", match="wildcard")
        for tail in ("other", "alpha", "x.end"):
            await peer.publish(f"{base}.{tail}", tail)
        for key, tail in (("prefix", "alpha"), ("wild", "x.end")):
            got = await wamp.next(f"{base}.{key}", f"the {key} event")
            if [got["args"], got["topic"]] != [[tail], f"{base}.{tail}"]:
                raise Failure(f"{key} heard {short(got['args'])} on {got['topic']}")

    async def no_procedure(self, wamp, peer, procedure):
        error = await peer.call_error(procedure, "anybody?")
        if error != "wamp.error.no_such_procedure":
            raise Failure(f"the error is {error}")
