"""The brokers, each started as its documentation says, on loopback, with ports and a directory of its own.

What is started here is ended here: each broker is the leader of a session of processes of its own, and only that is
ended. Nothing of the machine's own configuration or data is used."""

import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
START_S = 120
END_S = 20


class Unavailable(Exception):
    """The broker is not installed here."""


class Failed(Exception):
    """The broker does not come up, or is gone."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def output(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).strip()


class Broker:
    """One broker that runs. `urls` are by what is spoken there."""

    name = title = ""
    login = []

    def __init__(self, folder, persistent=False, config=""):
        # One that is started again finds nothing of the one before.
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=folder))
        self.persistent, self.config = persistent, config
        self.processes, self.urls, self.port = [], {}, free_port()

    def start(self):
        self.launch()
        self.wait_until_it_listens()

    def wait_until_it_listens(self):
        begun = time.monotonic()
        while not self.listens():
            if self.processes[-1].poll() is not None:
                raise Failed(f"{self.name} ended with {self.processes[-1].returncode}: {self.last_words()}")
            if time.monotonic() - begun > START_S:
                raise Failed(f"{self.name} does not listen after {START_S} s: {self.last_words()}")
            time.sleep(0.1)

    def last_words(self):
        lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"

    def is_alive(self):
        return bool(self.processes) and all(process.poll() is None for process in self.processes)

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def run(self, *command, **environment):
        with open(self.folder / "log", "ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, **{key: str(value) for key, value in environment.items()}}, start_new_session=True)
        self.processes.append(process)
        return process

    def pids(self):
        """The processes that do the work."""
        return [self.processes[-1].pid]

    def cpu_s(self):
        """What its threads have run so far."""
        total = 0
        for pid in self.pids():
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    total += int(file.read_text().split()[0])
                except OSError:
                    pass
        return total / 1e9

    def stop(self):
        for process in reversed(self.processes):
            self.end(process)

    def end(self, process):
        # It leads a session of its own, so that its group is what it started.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                pass
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                continue
            if number == signal.SIGTERM and self.group_is_gone(process.pid):
                return

    @staticmethod
    def group_is_gone(group):
        for _ in range(50):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.1)
        return False

    def metrics(self):
        return {}


class Tandem(Broker):
    name = title = "tandem"
    program = ROOT / "target/release/tandem"

    # Once: somebody may commit while this runs.
    @classmethod
    @functools.cache
    def version(cls):
        commit = output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
        return f"{output(str(cls.program), '--version')} ({commit})"

    def launch(self):
        if not self.program.exists():
            raise Failed(f"no {self.program}: cargo build --release")
        text = self.config
        if self.persistent:
            text += f'[store]\npath = "{self.folder}/store"\n'
        command = [self.program, "serve", "--listen", f"127.0.0.1:{self.port}", "--log", "warn"]
        if text:
            config = self.folder / "tandem.toml"
            config.write_text(text)
            command += ["--config", config]
        self.run(*command)
        self.urls = {"stomp": f"tcp://127.0.0.1:{self.port}", "ws": f"ws://127.0.0.1:{self.port}/"}

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


class TandemOverTls(Tandem):
    """The same with a port for TLS beside the plain one, and a certificate made for this run."""

    title = "tandem"

    def launch(self):
        if not shutil.which("openssl"):
            raise Unavailable("openssl, which makes a certificate")
        key, certificate = self.folder / "server.key", self.folder / "server.pem"
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
             "-addext", "basicConstraints=critical,CA:FALSE"], capture_output=True, text=True, timeout=60)
        if made.returncode:
            raise Failed(f"openssl: {made.stderr.strip()}")
        self.tls_port = free_port()
        self.config = (f'listen_tls = ["127.0.0.1:{self.tls_port}"]\n{self.config}'
                       f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
        self.login = ["--ca", certificate]
        super().launch()
        self.urls["wss"] = f"wss://127.0.0.1:{self.tls_port}/"


class RabbitMQ(Broker):
    name, title = "rabbitmq", "RabbitMQ"
    login = ["--login", "guest", "--passcode", "guest", "--host", "/"]
    program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    @classmethod
    def version(cls):
        if not cls.program.exists():
            raise Unavailable("rabbitmq-server")
        return "RabbitMQ " + output("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server")

    def launch(self):
        epmd, amqp, dist, web = (free_port() for _ in range(4))
        (self.folder / "enabled_plugins").write_text("[rabbitmq_stomp,rabbitmq_web_stomp].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{amqp}\nstomp.listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"web_stomp.tcp.ip = 127.0.0.1\nweb_stomp.tcp.port = {web}\n")
        where = {"HOME": self.folder, "ERL_EPMD_PORT": epmd, "ERL_EPMD_ADDRESS": "127.0.0.1"}
        # Erlang would leave one running that nobody ends.
        self.run("epmd", "-port", epmd, "-address", "127.0.0.1", **where)
        self.run(self.program, **where,
                 RABBITMQ_NODENAME="bench@localhost", RABBITMQ_DIST_PORT=dist, RABBITMQ_NODE_PORT=amqp,
                 RABBITMQ_CONFIG_FILE=self.folder / "rabbitmq.conf", RABBITMQ_MNESIA_BASE=self.folder / "mnesia",
                 RABBITMQ_LOG_BASE=self.folder / "logs", RABBITMQ_PID_FILE=self.folder / "pid",
                 RABBITMQ_ENABLED_PLUGINS_FILE=self.folder / "enabled_plugins",
                 RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}")
        self.urls = {"stomp": f"tcp://127.0.0.1:{self.port}", "ws": f"ws://127.0.0.1:{web}/ws"}
        self.web = web

    def pids(self):
        group = self.processes[-1].pid
        found = [pid for pid, name in group_members(group) if name.startswith("beam")]
        return found or [group]


class ActiveMQ(Broker):
    name, title = "activemq", "ActiveMQ"
    jar = Path("/usr/share/activemq/bin/activemq.jar")

    @classmethod
    def version(cls):
        if not cls.jar.exists():
            raise Unavailable("activemq")
        java = output("java", "-version").splitlines()[0]
        return "ActiveMQ " + output("dpkg-query", "-W", "-f", "${Version}", "activemq") + f", {java}"

    def launch(self):
        config = Path("/etc/activemq/instances-available/main")
        conf = self.folder / "conf"
        conf.mkdir()
        shutil.copy(config / "log4j2.properties", conf)
        # Debian's configuration with STOMP in the place of OpenWire.
        text = (config / "activemq.xml").read_text()
        old = '<transportConnector name="openwire" uri="tcp://127.0.0.1:61616"/>'
        if old not in text:
            raise Failed(f"{config}/activemq.xml is not as it was")
        new = f'<transportConnector name="stomp" uri="stomp+nio://127.0.0.1:{self.port}"/>'
        (conf / "activemq.xml").write_text(text.replace(old, new))
        self.run("java", "-Xms512M", "-Xmx512M", "-Dorg.apache.activemq.UseDedicatedTaskRunner=true",
                 "-Djava.awt.headless=true", f"-Djava.io.tmpdir={self.folder}",
                 f"-Dlog4j.configurationFile=file:{conf}/log4j2.properties",
                 "--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens", "java.base/java.util=ALL-UNNAMED",
                 "--add-opens", "java.base/java.net=ALL-UNNAMED",
                 "-Dactivemq.home=/usr/share/activemq", f"-Dactivemq.base={self.folder}",
                 f"-Dactivemq.conf={conf}", f"-Dactivemq.data={self.folder}/data",
                 "-jar", self.jar, "start", f"xbean:file:{conf}/activemq.xml")
        self.urls = {"stomp": f"tcp://127.0.0.1:{self.port}"}


class Nats(Broker):
    name, title = "nats", "NATS"
    program = "nats-server"

    @classmethod
    def version(cls):
        if not shutil.which(cls.program):
            raise Unavailable(cls.program)
        return output(cls.program, "--version").replace("nats-server: v", "NATS ")

    def launch(self):
        web = free_port()
        config = self.folder / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\n'
                          f'websocket {{ listen: "127.0.0.1:{web}", no_tls: true }}\n')
        self.run(self.program, "-c", config)
        self.urls = {"nats": f"nats://127.0.0.1:{self.port}", "ws": f"ws://127.0.0.1:{web}/"}


class Mosquitto(Broker):
    name, title = "mosquitto", "Mosquitto"

    @classmethod
    def version(cls):
        if not shutil.which("mosquitto"):
            raise Unavailable("mosquitto")
        return "Mosquitto " + output("dpkg-query", "-W", "-f", "${Version}", "mosquitto")

    def launch(self):
        config = self.folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.run("mosquitto", "-c", config)
        self.urls = {"mqtt": f"mqtt://127.0.0.1:{self.port}"}


class Crossbar(Broker):
    name, title = "crossbar", "Crossbar"
    program = HERE / ".venv/bin/crossbar"

    @classmethod
    def version(cls):
        if not cls.program.exists():
            raise Unavailable("crossbar")
        shown = output(HERE / ".venv/bin/pip", "show", "crossbar")
        return "Crossbar " + re.search(r"^Version: (.*)$", shown, re.M)[1]

    def launch(self):
        node = self.folder / ".crossbar"
        node.mkdir()
        allow = {action: True for action in ("call", "register", "publish", "subscribe")}
        (node / "config.json").write_text(json.dumps({
            "version": 2,
            "workers": [{
                "type": "router",
                "realms": [{"name": "realm1", "roles": [{"name": "anonymous", "permissions": [
                    {"uri": "", "match": "prefix", "allow": allow}]}]}],
                "transports": [{
                    "type": "websocket", "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": self.port},
                    "serializers": ["json", "msgpack", "cbor"]}]}]}))
        self.run(self.program, "start", "--cbdir", node)
        self.urls = {"ws": f"ws://127.0.0.1:{self.port}/"}

    def pids(self):
        # A controller, and the router that it starts.
        return [pid for pid, _ in group_members(self.processes[-1].pid)]


class Limit(Broker):
    """No broker, but what the kernel allows: bench/examples/limit_server.rs."""

    name, title = "limit", "limit server"
    program = ROOT / "target/release/examples/limit_server"

    @classmethod
    def version(cls):
        if not cls.program.exists():
            raise Unavailable(f"{cls.program}: cargo build --release -p tandem-bench --example limit_server")
        return "limit server of the same commit"

    def launch(self):
        self.run(self.program, f"127.0.0.1:{self.port}")
        self.urls = {"ws": f"ws://127.0.0.1:{self.port}/"}


def group_members(group):
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        if int(rest.split()[2]) == group:
            yield int(entry.name), name


ALL = {broker.name: broker for broker in (Tandem, RabbitMQ, ActiveMQ, Nats, Mosquitto, Crossbar, Limit)}
