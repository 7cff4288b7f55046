"""Leading: who leads, what is judged from heartbeats, and when a round is made.

`core` is the whole logic without I/O (the simulation drives it too); `observe` judges liveness;
`shell` runs the core over a real log.
"""
