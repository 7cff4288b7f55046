"""Deciding: order -> quota -> filter -> score -> commit, each stage small pure functions.

`decide` turns a state into a round of proposals; `policies` names compositions of the stages;
`planner` and `fleet` are caches derived from the state, rebuilt at will. Integers only.
"""
