"""Whatever a replay can rebuild: delete it, replay the log, and it comes back.

`cluster` is the fold, `scheduling` the decisions, `leader` and `replica` keep both live.
"""

from eventsched.projections.compiled import finding

if __name__ == "projections":  # a second copy of every class would make equal states unequal
    raise ImportError("import it as eventsched.projections")

finding.use()
