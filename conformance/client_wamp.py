#!/usr/bin/env python3
"""Our WAMP client against Crossbar: WebSocket and RawSocket in every serializer, and every way to log in.

    benches/peers/setup          installs Crossbar, from PyPI; quick when it is there
    conformance/client_wamp.py   starts it, runs tests/tests/client_wamp_peers.rs against it, and ends it
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "benches" / "peers"))

import brokers  # noqa: E402  (its folder is put in the path above)

# That of client_wamp_peers.rs; and what autobahn, which Crossbar brings, keeps of it and of the password.
SEED = "0123456789abcdef" * 4
DERIVE = f"""
import json
from autobahn.wamp.auth import derive_scram_credential
from nacl.signing import SigningKey
scram = derive_scram_credential("joe@example.com", "secret")
key = SigningKey(bytes.fromhex("{SEED}")).verify_key.encode().hex()
print(json.dumps({{"scram": {{k: v for k, v in scram.items()}}, "key": key}}))
"""


class Crossbar(brokers.Crossbar):
    def launch(self):
        self.port, rawsocket, logins = self.port, brokers.free_port(), brokers.free_port()
        derived = json.loads(subprocess.run([self.program.parent / "python", "-c", DERIVE], check=True,
                                            capture_output=True, text=True).stdout)
        node = self.folder / ".crossbar"
        node.mkdir()
        allow = {action: True for action in ("call", "register", "publish", "subscribe")}
        disclose = {"caller": True, "publisher": True}
        roles = [{"name": "anonymous", "permissions": [
            {"uri": "", "match": "prefix", "allow": allow, "disclose": disclose}]}]
        serializers = ["json", "msgpack", "cbor"]
        role = {"role": "anonymous"}
        auth = {
            "ticket": {"type": "static", "principals": {"joe": {"ticket": "secret", **role}}},
            "wampcra": {"type": "static", "users": {"joe": {"secret": "secret", **role}}},
            "scram": {"type": "static", "principals": {"joe": {**derived["scram"], **role}}},
            "cryptosign": {"type": "static", "principals": {
                "joe": {"realm": "realm1", "authorized_keys": [derived["key"]], **role}}},
        }

        def at(port):
            return {"type": "tcp", "interface": "127.0.0.1", "port": port}

        (node / "config.json").write_text(json.dumps({"version": 2, "workers": [{
            "type": "router",
            "realms": [{"name": "realm1", "roles": roles}],
            "transports": [
                {"type": "rawsocket", "endpoint": at(rawsocket), "serializers": serializers},
                {"type": "websocket", "endpoint": at(logins), "serializers": serializers, "auth": auth},
                {"type": "websocket", "endpoint": at(self.port), "serializers": serializers},
            ]}]}))
        self.run(self.program, "start", "--cbdir", node)
        self.urls = {"ws": f"ws://127.0.0.1:{self.port}/"}
        self.ways = [self.urls["ws"], f"tcp://127.0.0.1:{rawsocket}"]
        self.logins = f"ws://127.0.0.1:{logins}/"


def main():
    try:
        print(Crossbar.version(), flush=True)
    except brokers.Unavailable as missing:
        sys.exit(f"no {missing}: benches/peers/setup installs it")
    with tempfile.TemporaryDirectory(prefix="tandem-client-") as folder:
        broker = Crossbar(Path(folder))
        try:
            broker.launch()
            broker.wait_until_it_listens()
            environment = {**os.environ, "TANDEM_WAMP_PEERS": " ".join(broker.ways), "TANDEM_WAMP_LOGINS": broker.logins}
            command = ["cargo", "test", "--quiet", "-p", "tandem-tests", "--test", "client_wamp_peers", "--",
                       "--ignored", "--test-threads", "1", *sys.argv[1:]]
            sys.exit(subprocess.run(command, cwd=HERE.parent, env=environment).returncode)
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
