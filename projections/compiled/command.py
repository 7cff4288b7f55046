"""eventsched compile: faster decisions for whoever has a C compiler."""

from __future__ import annotations

import sys
import time
from typing import Annotated

from cyclopts import Parameter

from eventsched.errors import UsageError
from eventsched.projections.compiled import building
from eventsched.projections.compiled.building import NotCompiled
from eventsched.projections.compiled.finding import VARIABLE, kept_in
from eventsched.projections.compiled.sources import compiled


async def compile_(
    *, remove: Annotated[bool, Parameter(help="forget what was compiled; the sources are used again")] = False
) -> None:
    """Compile the decisions and the simulator, for every process that starts from now on; takes about a minute.

    They decide the same, in about half the time. Needs a C compiler and `pip install 'eventsched[compile]'`. What is
    compiled is kept in the user's cache, or where EVENTSCHED_COMPILED says. After a change of the sources, an upgrade
    say, Python reads the sources until this is run again.
    """
    folder = kept_in()
    if folder is None:
        raise UsageError(f"{VARIABLE} is off, or there is no home", f"let {VARIABLE} name a folder")
    if remove:
        try:
            print(f"removed {building.remove(folder)} from {folder}")
        except OSError as error:
            raise NotCompiled(f"{folder} cannot be removed: {error.strerror}") from error
        return
    print(f"compiling {len(compiled())} modules …", file=sys.stderr)
    began = time.monotonic()
    kept = building.build(folder)
    print(f"compiled in {time.monotonic() - began:.0f} s into {kept}; start the schedulers again to use it")
