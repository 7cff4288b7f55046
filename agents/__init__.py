"""Whatever must run on the node: the agent's core, its drivers, its leash and its inventory."""

if __name__ == "agents":  # a second copy of every class would make equal values unequal
    raise ImportError("import it as eventsched.agents")
