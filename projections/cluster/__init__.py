"""The cluster's state and the one function that changes it.

`state` holds data, `evolve` folds an event into it, `check` states the invariants, `digest`
gives the canonical hash, `outstanding` says what a node still owes. Pure: no clock, no I/O,
no floats, no sets, no randomness.
"""
