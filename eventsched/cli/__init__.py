"""The command line. `main` is the entry point; each group of verbs has a module of its own.

Commands of other packages are named by string and imported when they are run, so the contract
does not depend on them and starting stays quick.
"""

from eventsched.cli.app import main

__all__ = ["main"]
