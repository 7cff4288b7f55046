"""The garbage collector of processes that hold very many plain records.

Our records hold no cycles; what makes cycles (tasks, exceptions) is rare. With Python's defaults
a busy scheduler spends a fifth of its time looking through records that are all alive.
"""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """Look for cycles about a hundred times less often than by default; what exists now is exempt."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(70_000, 20, 20)
