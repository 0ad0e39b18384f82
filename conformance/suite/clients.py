"""Who takes part: every client library, in every transport and serializer it is run in."""

import shutil
import subprocess
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
    unix: str | None = None  # the path of a socket
    realm: str = "realm1"

    @classmethod
    def of(cls, url, wamp=None, stomp=None, rawsocket=None, tcp=None, unix=None):
        at = address(url)
        return cls(wamp or url, stomp or url, rawsocket or at, tcp or at, unix)


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
    meets: bool = True  # takes part in the matrix, whose rows grow with the square: a library's newest version does

    @property
    def name(self):
        return f"{self.library} {self.transport} {self.serializer}"


# Interpreter, how it is asked whether the library is there, and the package that has it.
DEBIAN = {".rb": ("ruby", ["-rstomp", "-e", ""], "ruby-stomp"),
          ".pl": ("perl", ["-MNet::Stomp", "-e", "1"], "libnet-stomp-perl")}


def command(driver):
    """The command line of a driver, or why it cannot run here."""
    path = ROOT / "clients" / driver
    if path.suffix == ".py":
        python = ROOT / ".venv/bin/python"
        return ([str(python), str(path)], None) if python.exists() else (None, "no .venv: run conformance/setup")
    if path.suffix in DEBIAN:
        interpreter, probe, package = DEBIAN[path.suffix]
        there = shutil.which(interpreter) and not subprocess.run([interpreter, *probe], capture_output=True).returncode
        return ([interpreter, str(path)], None) if there else (None, f"no {package}: run conformance/setup as root")
    if not shutil.which("node"):
        return None, "no node"
    if not (ROOT / "node_modules").exists():
        return None, "no node_modules: run conformance/setup"
    if driver == "browser.mjs" and not Path(CHROMIUM).exists():
        return None, f"no {CHROMIUM}: run conformance/setup"
    return ["node", str(path)], None


NO_SCRAM = {"scram": "it has no SCRAM"}
WAMPY_LACKS = NO_SCRAM | {"exclude_me": "wampy drops exclude_me:false", "unacknowledged": "wampy always asks for PUBLISHED"}
TEXT_BODIES = "webstomp-client's bodies are strings, and it splits its input at every NUL"
WEBSTOMP_LACKS = {"bytes": TEXT_BODIES, "NUL": TEXT_BODIES, "escapes": "webstomp-client does not escape headers"}
ONLY_TEXT = {"bytes": "SockJS carries text"}
NO_NACK = {"nack": "STOMP 1.0 has no NACK"}
NO_BEATS = {"heart-beat": "STOMP 1.0 has no heart-beats"}
NO_ESCAPES = {"escapes": "STOMP 1.0 has no escapes"}
NO_ERROR = {"ERROR": "stompit ends its own process at an ERROR whose body is text"}


def everybody(target):
    host, port = address(target.wamp)
    websocket = {"transport": "websocket", "url": target.wamp, "realm": target.realm, "host": host, "port": port}
    rawsocket = {"transport": "rawsocket", "realm": target.realm, "host": target.rawsocket[0],
                 "port": target.rawsocket[1], "url": target.wamp}
    unix = {"transport": "unix", "realm": target.realm, "path": target.unix, "url": target.wamp}
    host, port = address(target.stomp)
    stomp_ws = {"transport": "websocket", "url": target.stomp, "host": host, "port": port,
                "path": urlsplit(target.stomp).path or "/"}
    tcp = {"transport": "tcp", "host": target.tcp[0], "port": target.tcp[1]}

    for serializer in ("json", "msgpack", "cbor"):
        chosen = {"serializer": serializer}
        yield Client("autobahn-js", "wamp", "autobahn.mjs", "WebSocket", serializer, websocket | chosen, NO_SCRAM)
        yield Client("wampy", "wamp", "wampy.mjs", "WebSocket", serializer, websocket | chosen, WAMPY_LACKS)
        yield Client("autobahn-python", "wamp", "autobahn_py.py", "WebSocket", serializer, websocket | chosen)
        yield Client("autobahn-python", "wamp", "autobahn_py.py", "WebSocket", f"{serializer}.batched",
                     websocket | {"serializer": f"{serializer}.batched"})
        yield Client("autobahn-python", "wamp", "autobahn_py.py", "RawSocket", serializer, rawsocket | chosen)
        if target.unix:
            yield Client("autobahn-js", "wamp", "autobahn.mjs", "RawSocket", "json", rawsocket | {"serializer": "json"}, NO_SCRAM)

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
        first = NO_NACK | NO_BEATS | NO_ESCAPES if version == "1.0" else {}
        yield Client("stompest", "stomp", "stompest_py.py", "TCP", version, tcp | {"version": version}, first,
                     version == "1.2")
        yield Client("stompit", "stomp", "stompit.mjs", "TCP", version, tcp | {"version": version}, first | NO_ERROR,
                     version == "1.2")
        yield Client("stomp (Ruby)", "stomp", "ruby_stomp.rb", "TCP", version, tcp | {"version": version}, first,
                     version == "1.2")
    yield Client("aiostomp", "stomp", "aiostomp_py.py", "TCP", "1.1", tcp | {"version": "1.1"},
                 {"transactions": "aiostomp has no transactions"})
    yield Client("stompman", "stomp", "stompman_py.py", "TCP", "1.2", tcp | {"version": "1.2"})
    for version in ("1.0", "1.1"):
        yield Client("Net::Stomp", "stomp", "net_stomp.pl", "TCP", version, tcp | {"version": version},
                     NO_BEATS | NO_ESCAPES | (NO_NACK if version == "1.0" else {}), version == "1.1")

    # SockJS, by each of its transports, as those who come from Spring have it.
    def sockjs(transport):
        base = f"http://{host}:{port}/sockjs"
        return stomp_ws | {"version": "1.2", "sockjs": {"url": base, "transports": transport}}
    for transport in ("websocket", "xhr-streaming", "eventsource", "xhr-polling"):
        yield Client("stompjs", "stomp", "stompjs.mjs", "SockJS", transport, sockjs(transport), ONLY_TEXT, False)
    yield Client("webstomp-client", "stomp", "webstomp.mjs", "SockJS", "xhr-streaming", sockjs("xhr-streaming"),
                 WEBSTOMP_LACKS, False)

    for library, driver in (("ws", "ws.mjs"), ("websockets", "websockets_py.py")):
        yield Client(library, "websocket", driver, "WebSocket", "-", {})

    # In Chromium: the same drivers, on the libraries' browser builds, side by side in one page.
    for serializer in ("json", "msgpack", "cbor"):
        yield Client("autobahn-js", "wamp", "browser.mjs", "Chromium", serializer,
                     websocket | {"library": "autobahn", "serializer": serializer})
    # Of AutobahnJS only the browser build still has it: this too is in Chromium.
    yield Client("autobahn-js", "wamp", "browser.mjs", "long-poll", "json",
                 websocket | {"library": "autobahn", "transport": "longpoll", "serializer": "json", "denied": True},
                 {"progress": "AutobahnJS posts messages side by side: a result may overtake its progress"})
    yield Client("wampy", "wamp", "browser.mjs", "Chromium", "cbor",
                 websocket | {"library": "wampy", "serializer": "cbor"}, WAMPY_LACKS)
    for binary, how in ((False, "text"), (True, "binary")):
        yield Client("stompjs", "stomp", "browser.mjs", "Chromium", f"1.2 {how}",
                     stomp_ws | {"library": "@stomp/stompjs", "version": "1.2", "binary": binary})
    yield Client("stompjs", "stomp", "browser.mjs", "Chromium, SockJS", "websocket",
                 sockjs("websocket") | {"library": "@stomp/stompjs"}, ONLY_TEXT, False)
    # In the page that has no WebSocket: SockJS chooses first, then it is told.
    for transport in (None, "xhr-streaming", "eventsource", "xhr-polling"):
        yield Client("stompjs", "stomp", "browser.mjs", "Chromium without WebSocket", transport or "SockJS",
                     sockjs(transport) | {"library": "@stomp/stompjs", "denied": True}, ONLY_TEXT, False)
