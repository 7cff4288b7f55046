"""Simulation: a workload played in virtual time through the same fold and the same decisions as live.

There is no second scheduler here. What a cluster would record is built in memory, folded and
decided upon; only time, machines and how long jobs take are made up.
"""
