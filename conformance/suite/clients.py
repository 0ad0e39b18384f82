"""Who takes part: every client library, in every transport and serializer it is run in."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"


@dataclass(frozen=True)
class Target:
    """Where the broker listens. One port takes everything, unless a stand-in needs several."""

    wamp: str
    stomp: str
    rawsocket: tuple
    tcp: tuple
    realm: str = "realm1"

    @classmethod
    def of(cls, url, wamp=None, stomp=None, rawsocket=None, tcp=None):
        at = address(url)
        return cls(wamp or url, stomp or url, rawsocket or at, tcp or at)


def address(url):
    parts = urlsplit(url)
    return parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80)


@dataclass(frozen=True)
class Client:
    library: str
    language: str      # wamp, stomp, or websocket (neither: the frames are the runner's)
    driver: str        # the program in clients/, also the name of its process and log
    transport: str
    serializer: str
    params: dict = field(hash=False, compare=False)
    lacks: dict = field(default_factory=dict, hash=False, compare=False)  # what it cannot do: why

    @property
    def name(self):
        return f"{self.library} {self.transport} {self.serializer}"


def command(driver):
    """The command line of a driver, or why it cannot run here."""
    path = ROOT / "clients" / driver
    if path.suffix == ".py":
        python = ROOT / ".venv/bin/python"
        return ([str(python), str(path)], None) if python.exists() else (None, "no .venv: run conformance/setup")
    if not shutil.which("node"):
        return None, "no node"
    if not (ROOT / "node_modules").exists():
        return None, "no node_modules: run conformance/setup"
    if driver == "browser.mjs" and not Path(CHROMIUM).exists():
        return None, f"no {CHROMIUM}: run conformance/setup"
    return ["node", str(path)], None


WAMPY_LACKS = {"exclude_me": "wampy drops exclude_me:false", "unacknowledged": "wampy always asks for PUBLISHED"}
TEXT_BODIES = "webstomp-client's bodies are strings, and it splits its input at every NUL"
WEBSTOMP_LACKS = {"bytes": TEXT_BODIES, "NUL": TEXT_BODIES, "escapes": "webstomp-client does not escape headers"}
STOMPMAN_LACKS = {"ack in transactions": "stompman's ACK takes no transaction", "drop": "stompman reconnects by itself",
                  "error": "stompman reconnects by itself",
                  "heart-beat": "stompman connects when it must, and does not tell what was agreed on"}
STOMPIT_ERROR = "stompit throws, uncaught, on an ERROR that has a text, whoever sends it"
STOMPIT_LACKS = {"error": STOMPIT_ERROR, "error headers": STOMPIT_ERROR}
NO_NACK = {"nack": "STOMP 1.0 has no NACK"}
NO_BEATS = {"heart-beat": "STOMP 1.0 has no heart-beats"}
NO_ESCAPES = {"escapes": "STOMP 1.0 has no escapes"}


def everybody(target):
    host, port = address(target.wamp)
    websocket = {"transport": "websocket", "url": target.wamp, "realm": target.realm, "host": host, "port": port}
    rawsocket = {"transport": "rawsocket", "realm": target.realm, "host": target.rawsocket[0],
                 "port": target.rawsocket[1], "url": target.wamp}
    host, port = address(target.stomp)
    stomp_ws = {"transport": "websocket", "url": target.stomp, "host": host, "port": port,
                "path": urlsplit(target.stomp).path or "/"}
    tcp = {"transport": "tcp", "host": target.tcp[0], "port": target.tcp[1]}

    for serializer in ("json", "msgpack", "cbor"):
        chosen = {"serializer": serializer}
        yield Client("autobahn-js", "wamp", "autobahn.mjs", "WebSocket", serializer, websocket | chosen)
        yield Client("wampy", "wamp", "wampy.mjs", "WebSocket", serializer, websocket | chosen, WAMPY_LACKS)
        yield Client("autobahn-python", "wamp", "autobahn_py.py", "WebSocket", serializer, websocket | chosen)
        yield Client("autobahn-python", "wamp", "autobahn_py.py", "RawSocket", serializer, rawsocket | chosen)
    yield Client("autobahn-js", "wamp", "autobahn.mjs", "RawSocket", "json", rawsocket | {"serializer": "json"})

    for binary, how in ((False, "text"), (True, "binary")):
        yield Client("stompjs", "stomp", "stompjs.mjs", "WebSocket", f"1.2 {how}",
                     stomp_ws | {"version": "1.2", "binary": binary})
        yield Client("webstomp-client", "stomp", "webstomp.mjs", "WebSocket", f"1.2 {how}",
                     stomp_ws | {"version": "1.2", "binary": binary}, WEBSTOMP_LACKS)
    yield Client("stompjs", "stomp", "stompjs.mjs", "WebSocket", "1.1 text", stomp_ws | {"version": "1.1"},
                 {"escapes": "stompjs escapes headers in 1.2 only"})
    for version in ("1.0", "1.1", "1.2"):
        yield Client("stomp.py", "stomp", "stomp_py.py", "TCP", version, tcp | {"version": version},
                     NO_NACK | NO_BEATS | NO_ESCAPES if version == "1.0" else {})
    yield Client("stomp.py", "stomp", "stomp_py.py", "WebSocket", "1.2 text", stomp_ws | {"version": "1.2"},
                 {"bytes": "stomp.py's WSTransport sends bytes in text messages unless binary_mode is on"})
    yield Client("stomp.py", "stomp", "stomp_py.py", "WebSocket", "1.2 binary",
                 stomp_ws | {"version": "1.2", "binary": True})

    for version in ("1.0", "1.1", "1.2"):
        lacks = NO_NACK | NO_BEATS | NO_ESCAPES if version == "1.0" else {}
        yield Client("stompest", "stomp", "stompest_py.py", "TCP", version, tcp | {"version": version}, lacks)
        yield Client("stompit", "stomp", "stompit.mjs", "TCP", version, tcp | {"version": version},
                     lacks | STOMPIT_LACKS)
    yield Client("stompman", "stomp", "stompman_py.py", "TCP", "1.2", tcp | {"version": "1.2"}, STOMPMAN_LACKS)

    for library, driver in (("ws", "ws.mjs"), ("websockets", "websockets_py.py")):
        yield Client(library, "websocket", driver, "WebSocket", "-", {})

    # In Chromium: the same drivers, on the libraries' browser builds, side by side in one page.
    for serializer in ("json", "msgpack", "cbor"):
        yield Client("autobahn-js", "wamp", "browser.mjs", "Chromium", serializer,
                     websocket | {"library": "autobahn", "serializer": serializer})
    yield Client("wampy", "wamp", "browser.mjs", "Chromium", "cbor",
                 websocket | {"library": "wampy", "serializer": "cbor"}, WAMPY_LACKS)
    for binary, how in ((False, "text"), (True, "binary")):
        yield Client("stompjs", "stomp", "browser.mjs", "Chromium", f"1.2 {how}",
                     stomp_ws | {"library": "@stomp/stompjs", "version": "1.2", "binary": binary})
