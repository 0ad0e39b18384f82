"""How long a broker takes from its start to the first PUBLISH that it acknowledges: by hand, as `tandem bench` starts none."""

import contextlib
import socket
import subprocess
import time

START_S = 30


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


def until_published(command, port):
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
