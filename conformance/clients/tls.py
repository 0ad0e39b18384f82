#!/usr/bin/env python3
"""TLS as OpenSSL, autobahn-python and stomp.py see it: versions, ALPN, logins, certificates, channel binding.

    pip install 'autobahn[encryption]==26.10.2' pyopenssl stomp.py==9.0.0    more than requirements.txt has
    conformance/clients/tls.py target/debug/tandem                           makes certificates, starts the daemon

By hand, for `run.py` knows no certificates; `openssl` must be there. Exits 1 if anything is not as it should be.
"""

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

import stomp
import txaio
from autobahn.asyncio.wamp import ApplicationSession
from autobahn.asyncio.websocket import WampWebSocketClientFactory
from autobahn.wamp import auth
from autobahn.wamp.cryptosign import CryptosignKey
from autobahn.wamp.types import ComponentConfig
from OpenSSL import SSL

TANDEM = os.path.abspath(sys.argv[1])
SEED = bytes([5]) * 32
HEALTH = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
passed = failed = 0


def check(what, said, good):
    global passed, failed
    passed, failed = passed + good, failed + (not good)
    print("ok  " if good else "FAIL", what, "->", said, flush=True)


def openssl(*arguments, **options):
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30, **options)


def make_certificates():
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl("req", "-x509", *curve, "-keyout", "server.key", "-out", "server.pem", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", check=True)
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=clients", check=True)
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "alice.key", "-out", "alice.csr", "-subj", "/CN=x",
            check=True)
    with open("extensions", "w") as file:
        file.write("subjectAltName=DNS:alice.example\nextendedKeyUsage=clientAuth\n")
    openssl("x509", "-req", "-in", "alice.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "extensions", "-out", "alice.pem", check=True)


def start():
    password = subprocess.run([TANDEM, "hash-password"], input="wonderland\n", text=True, capture_output=True,
                              check=True).stdout.strip()
    with open("tandem.toml", "w") as file:
        file.write(f'''
listen_tls = ["127.0.0.1:0"]
[tls]
certificate = "server.pem"
key = "server.key"
client_ca = "ca.pem"
client_certificates = "optional"
[[users]]
name = "joe"
password = "{password}"
cryptosign = ["{CryptosignKey.from_bytes(SEED).public_key()}"]
[[users]]
name = "alice"
certificates = ["dns:alice.example"]
''')
    daemon = subprocess.Popen([TANDEM, "serve", "--config", "tandem.toml"], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL)
    return daemon, int(re.search(r"wss://127\.0\.0\.1:(\d+)/", daemon.stdout.readline())[1])


def versions_and_alpn(port):
    for version in ("-tls1_2", "-tls1_3"):
        for alpn, chosen in ((None, None), ("http/1.1", "http/1.1"), ("h2", False)):
            more = ["-alpn", alpn] if alpn else []
            done = openssl("s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", "server.pem", "-ign_eof", version,
                           *more, input=HEALTH)
            told = re.search(r"ALPN protocol: (\S+)", done.stdout)
            answered = "HTTP/1.1 200" in done.stdout and "Verify return code: 0" in done.stdout
            good = not answered if chosen is False else answered and (told and told[1]) == chosen
            check(f"s_client {version} alpn={alpn}", "200" if answered else "refused", good)
    for version in ("-tls1", "-tls1_1"):
        done = openssl("s_client", "-connect", f"127.0.0.1:{port}", version, "-cipher", "ALL:@SECLEVEL=0", input="")
        check(f"s_client {version}", "refused" if done.returncode else "accepted", done.returncode != 0)


async def autobahn(port, method, authid=None, certificate=None, authextra=None):
    done = asyncio.get_running_loop().create_future()

    class Session(ApplicationSession):
        def onConnect(self):
            more = {}
            if method == "cryptosign":
                self.signer = auth.create_authenticator(method, authid=authid, privkey=SEED.hex(),
                                                        authextra=authextra or {})
                more["authextra"] = self.signer.authextra
            self.join("realm1", [method], authid, **more)

        def onChallenge(self, challenge):
            return "wonderland" if challenge.method == "ticket" else self.signer.on_challenge(self, challenge)

        def onJoin(self, details):
            done.set_result(f"in as {details.authid} by {details.authmethod}")
            self.leave()

        def onLeave(self, details):
            if not done.done():
                done.set_result(f"out: {details.reason}")
            self.disconnect()

    context = ssl.create_default_context(cafile="server.pem")
    if certificate:
        context.load_cert_chain(f"{certificate}.pem", f"{certificate}.key")
    factory = WampWebSocketClientFactory(lambda: Session(ComponentConfig("realm1", {})), url=f"wss://localhost:{port}/")
    await asyncio.get_running_loop().create_connection(factory, "127.0.0.1", port, ssl=context,
                                                       server_hostname="localhost")
    return await asyncio.wait_for(done, 10)


async def logins(port):
    txaio.use_asyncio()
    txaio.config.loop = asyncio.get_running_loop()
    unique = {"channel_binding": "tls-unique"}
    for what, options, expected in (
        ("anonymous", dict(method="anonymous"), "in as anonymous-"),
        ("ticket", dict(method="ticket", authid="joe"), "in as joe by ticket"),
        ("cryptosign", dict(method="cryptosign", authid="joe"), "in as joe by cryptosign"),
        # It binds to what the CHALLENGE does not name.
        ("cryptosign tls-unique", dict(method="cryptosign", authid="joe", authextra=unique),
         "out: wamp.error.authentication_denied"),
        ("tls", dict(method="tls", certificate="alice"), "in as alice by tls"),
        ("tls without", dict(method="tls"), "out: wamp.error.authentication_required"),
    ):
        said = await autobahn(port, **options)
        check(f"autobahn {what}", said, said.startswith(expected))


def cryptosign_bound(port, right):
    """By the exporter of OpenSSL, over RawSocket."""
    stream = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), socket.create_connection(("127.0.0.1", port)))
    stream.set_connect_state()
    stream.do_handshake()
    channel = stream.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"") if right else bytes(32)
    key = CryptosignKey.from_bytes(SEED)

    def read(count):
        data = b""
        while len(data) < count:
            data += stream.recv(count - len(data))
        return data

    def say(message):
        message = json.dumps(message).encode()
        stream.sendall(len(message).to_bytes(4, "big") + message)

    def hear():
        return json.loads(read(int.from_bytes(read(4), "big")))

    stream.sendall(b"\x7f\xf1\0\0")
    read(4)
    authextra = {"pubkey": key.public_key(), "channel_binding": "tls-exporter"}
    say([1, "realm1", {"roles": {"caller": {}}, "authmethods": ["cryptosign"], "authextra": authextra}])
    extra = hear()[2]
    assert extra["channel_binding"] == "tls-exporter", extra
    message = bytes(a ^ b for a, b in zip(bytes.fromhex(extra["challenge"]), channel))
    signature = key._key.sign(message).signature
    say([5, (signature + message).hex(), {}])
    return hear()[0]


def stomp_with_certificate(port):
    said, done = [], threading.Event()

    class Listener(stomp.ConnectionListener):
        def on_connected(self, frame):
            said.append(frame.headers.get("user-name"))

        def on_message(self, frame):
            said.append(frame.body)
            done.set()

    connection = stomp.Connection12([("127.0.0.1", port)])
    connection.set_ssl([("127.0.0.1", port)], ca_certs="server.pem", cert_file="alice.pem", key_file="alice.key")
    connection.set_listener("", Listener())
    connection.connect(wait=True)
    connection.subscribe("/topic/a", id=1)
    connection.send("/topic/a", "hello")
    done.wait(10)
    connection.disconnect()
    return said


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    make_certificates()
    daemon, port = start()
    try:
        versions_and_alpn(port)
        asyncio.run(logins(port))
        for right, kind in ((True, 2), (False, 3)):
            said = cryptosign_bound(port, right)
            check(f"cryptosign tls-exporter {'right' if right else 'wrong'}", said, said == kind)
        said = stomp_with_certificate(port)
        check("stomp.py with a certificate", said, said == ["alice", "hello"])
        daemon.send_signal(signal.SIGHUP)
        said = stomp_with_certificate(port)
        check("stomp.py after SIGHUP", said, said == ["alice", "hello"])
    finally:
        daemon.terminate()
        check("the daemon ends well", daemon.wait(30), daemon.returncode == 0)
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(failed > 0)
