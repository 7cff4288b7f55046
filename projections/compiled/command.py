"""eventsched compile: faster decisions for whoever has a C compiler."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Annotated

from cyclopts import Parameter

from eventsched.errors import UsageError
from eventsched.projections.compiled.building import build
from eventsched.projections.compiled.finding import VARIABLE, kept_in
from eventsched.projections.compiled.sources import compiled


async def compile_(
    *, remove: Annotated[bool, Parameter(help="forget what was compiled; the sources are used again")] = False
) -> None:
    """Compile the decisions and the simulator, for every process that starts from now on; a minute or two.

    They decide the same, in about half the time. Needs a C compiler and `pip install 'eventsched[compile]'`. Whenever
    the sources change, they are used again until this is repeated.
    """
    folder = kept_in()
    if folder is None:
        raise UsageError(f"{VARIABLE} is off", "unset it, or let it name a folder")
    if remove:
        shutil.rmtree(folder, ignore_errors=True)
        print("removed")
        return
    print(f"compiling {len(compiled())} modules …", file=sys.stderr)
    began = time.monotonic()
    kept = build(folder)
    print(f"compiled in {time.monotonic() - began:.0f} s into {kept}")
