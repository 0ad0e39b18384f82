"""Two small clients by hand, for what `tandem bench` does not do: it starts no broker, and speaks no TLS.

    clients.py idle-over-tls PORT PID CONNECTIONS

opens idle connections with a subscription each, over TLS, and writes as JSON what they cost the process. `start` is
called by measure.py, as time passes in it from the very exec."""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time

START_S = 30
SETTLING_S = 1


def opening(port):
    return (f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Protocol: wamp.2.json\r\n\r\n").encode()


def frame(text):
    """A text message of a client, under a mask that changes nothing."""
    payload = text.encode()
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


def ask(stream, question, answer):
    """Sends, and waits until something was said that has the answer in it."""
    stream.sendall(question)
    heard = b""
    while answer not in heard:
        came = stream.recv(4096)
        if not came:
            raise ConnectionError(f"closed before {answer}: {heard}")
        heard += came


def join(stream, port):
    ask(stream, opening(port), b"\r\n\r\n")
    ask(stream, frame('[1,"realm1",{"roles":{"publisher":{},"subscriber":{}}}]'), b"[2,")


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def start(command, port):
    """Seconds from the exec until a first PUBLISH is acknowledged, and the resident bytes at that time."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    try:
        stream = None
        while stream is None:
            try:
                stream = socket.create_connection(("127.0.0.1", port), START_S)
            except ConnectionRefusedError:
                if time.perf_counter() - begun > START_S or process.poll() is not None:
                    raise
                time.sleep(0.0002)
        with contextlib.closing(stream):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            join(stream, port)
            ask(stream, frame('[16,1,{"acknowledge":true},"bench.start",["first"]]'), b"[17,1,")
            took = time.perf_counter() - begun
            return took, resident_bytes(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def idle_over_tls(port, pid, connections):
    context = ssl.create_default_context()
    # The certificate was made for this run, and by nobody in particular.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def subscribed(number):
        plain = socket.create_connection(("127.0.0.1", port), START_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = context.wrap_socket(plain)
        join(stream, port)
        ask(stream, frame(f'[32,1,{{}},"bench.idle.n{number}"]'), b"[33,1,")
        return stream

    # What the first of them costs, the others do not.
    streams = [subscribed("first")]
    time.sleep(SETTLING_S)
    before = resident_bytes(pid)
    streams += [subscribed(number) for number in range(connections)]
    time.sleep(SETTLING_S)
    after = resident_bytes(pid)
    gone = 0
    for stream in streams:
        stream.setblocking(False)
        try:
            gone += stream.recv(1) == b""
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        except OSError:
            gone += 1
    return {"bytes_per_connection": (after - before) / connections, "wrong": gone,
            "wrong_examples": [f"{gone} connections ended while they were idle"] if gone else [],
            "broker": {"resident_bytes": after}}


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] != "idle-over-tls":
        raise SystemExit(__doc__)
    print(json.dumps(idle_over_tls(*map(int, sys.argv[2:]))))
