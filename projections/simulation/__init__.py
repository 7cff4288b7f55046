"""Simulation: recorded workloads through the same `evolve` and `decide` as live ones."""
