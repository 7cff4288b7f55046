"""What documents show: their fenced blocks, and a shell in which the commands of a page are typed one after another.

    ```console
    $ eventsched dev --config deploy/quota.toml &     a command; one that ends in & stays, and its words are awaited
    eventsched dev is up (…)                          what it must print; … stands for anything on a line
    …                                                 or, alone, for any lines
    ```
    ```sh
    cat > jobs.json <<'EOF'                           typed as it is; it must succeed
    ```

What is shown is what is printed, to the last line. A command must succeed, unless `echo $?` follows.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Self

import psutil

from eventsched.nats_server import free_port

ROOT = Path(__file__).parents[2]
STEP_S = 60.0
END_S = 20.0
_FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of a document in these languages, in order."""
    return [body for language, body in _FENCED.findall(text) if language in languages]


class Step(NamedTuple):
    """A command, and what it must print. None: whatever it likes. may_fail: its exit code is shown next."""

    command: str
    shown: str | None
    may_fail: bool = False


def steps(text: str) -> list[Step]:
    """The commands of a document, in order."""
    found: list[Step] = []
    for language, body in _FENCED.findall(text):
        if language == "sh":
            found.append(Step(body, None))
        elif language == "console":
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                if command == "echo $?":
                    found[-1] = found[-1]._replace(may_fail=True)
                found.append(Step(command, shown))
    return found


def fits(shown: str, printed: str) -> bool:
    """True when `printed` is what is shown."""
    lines = [
        r"(?:[^\n]*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", r"[^\n]*") + r"\s*\n"
        for line in shown.splitlines()
    ]
    ended = printed if printed.endswith("\n") or not printed else f"{printed}\n"
    return re.fullmatch("".join(lines), ended) is not None


class Shell:
    """A shell in a directory, in which `eventsched` is this one and ports are free ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        programs = directory / ".programs"
        programs.mkdir()
        for name, line in (
            ("eventsched", f'exec {sys.executable} -m eventsched "$@"'),
            ("nats-server", f'exec {Path(sys.executable).parent / "nats-server"} "$@"'),
        ):
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        (directory / "deploy").symlink_to(ROOT / "deploy")
        (directory / "tests").symlink_to(ROOT / "tests")
        self._ports = {"8000": str(free_port()), "4222": str(free_port())}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVENTSCHED_")}
        commands, self._keyboard = os.pipe()  # not its stdin: what it starts must not read what is typed next
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc", f"/dev/fd/{commands}"],
            cwd=directory,
            env={**clean, "PATH": f"{programs}:{clean['PATH']}", "COLUMNS": "160", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(commands,),
        )
        os.close(commands)
        self._printed = ""
        self._type("set -m -o pipefail")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what stays, in good order: what was started first is what others need."""
        first, *others = psutil.Process(self._bash.pid).children() or [psutil.Process(self._bash.pid)]
        for group in (others, [first]):
            for process in group:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)
            for process in psutil.wait_procs(group, END_S)[1]:
                process.kill()
        os.close(self._keyboard)
        self._bash.wait(END_S)
        assert self._bash.stdout is not None
        self._bash.stdout.close()

    def run(self, step: Step) -> None:
        """Type a command; what it prints must be what is shown, and it must succeed."""
        stays = step.command.rstrip().endswith("&")
        mark = "" if stays else f"@{time.monotonic_ns()}@"
        self._type(step.command if stays else f"{step.command}\ncode=$?; echo {mark}$code; (exit $code)")
        deadline = time.monotonic() + STEP_S
        while True:
            printed, found, rest = self._printed.partition(mark) if mark else (self._printed, "", "")
            if found and "\n" in rest:
                code, _, self._printed = rest.partition("\n")
                assert step.shown is None or fits(self._ours(step.shown), printed), self._differs(step, printed)
                assert code == "0" or step.may_fail, f"$ {step.command}\nexit code {code}\n{printed}"
                return
            if stays and (not printed or printed.endswith("\n")) and fits(self._ours(step.shown or ""), printed):
                self._printed = ""
                return
            assert time.monotonic() < deadline, self._differs(step, printed)
            self._read()

    def _differs(self, step: Step, printed: str) -> str:
        return f"$ {step.command}\nshown:\n{step.shown}\nprinted:\n{printed}"

    def _ours(self, text: str) -> str:
        """With the ports of this shell."""
        for port, ours in self._ports.items():
            text = re.sub(rf"(localhost|127\.0\.0\.1):{port}\b", rf"\1:{ours}", text)
        return text

    def _type(self, text: str) -> None:
        ports = f"--http-port {self._ports['8000']} --nats-port {self._ports['4222']}"
        text = re.sub(r"\beventsched dev\b", f"eventsched dev {ports}", self._ours(text))
        text = re.sub(r"\beventsched api\b", f"eventsched api --port {self._ports['8000']}", text)
        os.write(self._keyboard, text.rstrip("\n").encode() + b"\n")

    def _read(self) -> None:
        assert self._bash.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._bash.stdout, selectors.EVENT_READ)
            if selector.select(0.5):
                data = os.read(self._bash.stdout.fileno(), 65_536)
                assert data, f"the shell ended: {self._printed}"
                self._printed += data.decode(errors="replace")
