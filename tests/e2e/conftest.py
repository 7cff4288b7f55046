"""One dev cluster of processes and fakes for the whole of the command line's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .terminal import Terminal


@pytest.fixture(scope="session")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path_factory.mktemp("dev"))
    terminal.dev("--driver", "process", "--cpus", "4", "--memory", "8G", "--gpus", "A100:2")
    yield terminal
    assert terminal.stop().code == 0
