"""A progress bar for work that takes a while."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from eventsched.visible import visible

Progress = Callable[[str, int, int], None]
"""Told of what is being done, how much of it is done, and of how much."""


@contextmanager
def bar() -> Iterator[Progress | None]:
    """A progress bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    tasks: dict[str, TaskID] = {}
    with Bar(console=Console(stderr=True), transient=True) as bar:

        def progress(label: str, ended: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(visible(label), total=total)
            bar.update(tasks[label], completed=ended)

        yield progress
