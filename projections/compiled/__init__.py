"""The decisions and the simulator compiled by mypyc, for whoever has a C compiler: the same sources, the same answers,
in about half the time. Nothing depends on it; without it, or once a source has changed, Python reads the sources.

`sources` says what is compiled, `finding` makes imports use it, `building` and `command` make it.
"""
