"""`eventsched dev`: the whole system on this machine with one command.

NATS, a scheduler and agents run as processes of their own, through the same command line anyone
else uses; this package only starts, watches and stops them.
"""
