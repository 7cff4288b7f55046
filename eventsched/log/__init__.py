"""The log: one total order of events. `port` says what it promises; `jetstream` keeps it on
NATS, `memory` in a process, and one contract test holds both to it.
"""
