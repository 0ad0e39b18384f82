"""The broker under test, started as a stranger would start it."""

import asyncio
import socket
import tempfile
from pathlib import Path

from .driver import Failure

CONFIG = """\
# Written by the conformance runner.
[websocket]
allowed_origins = ["same-origin", "{origin}"]
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Daemon:
    def __init__(self, program, folder, origin, more="", name="tandem"):
        self.program, self.folder, self.origin = Path(program), Path(folder), origin
        self.more, self.name = more, name
        self.port, self.process = free_port(), None
        # Of its own: the path of a socket is short.
        self.sockets = tempfile.TemporaryDirectory(prefix="tandem-")
        self.unix = f"{self.sockets.name}/socket"

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/"

    async def start(self):
        if not self.program.exists():
            raise Failure(f"no {self.program}: build it (cargo build --release), or give --daemon or --url")
        config = self.folder / f"{self.name}.toml"
        config.write_text(CONFIG.format(origin=self.origin) + self.more)
        command = [str(self.program), "serve", "--listen", f"127.0.0.1:{self.port}", "--listen", f"unix:{self.unix}",
                   "--config", str(config)]
        self.log = self.folder / f"{self.name}.log"
        with open(self.log, "wb") as log:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        for _ in range(200):
            if self.process.returncode is not None:
                raise Failure(f"{' '.join(command)} ended with {self.process.returncode}:\n{self.log.read_text()}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return self
            except OSError:
                await asyncio.sleep(0.05)
        raise Failure(f"{self.program} does not listen on port {self.port} after 10 s (see {self.log})")

    async def stop(self):
        """Asks it to end; True if it does so, by itself and with success."""
        if self.process is None or self.process.returncode is not None:
            return False
        self.process.terminate()
        try:
            return await asyncio.wait_for(self.process.wait(), 15) == 0
        except asyncio.TimeoutError:
            self.process.kill()
            await self.process.wait()
            return False
