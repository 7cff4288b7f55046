"""HTTP: the REST service over one log. A follower answers reads, the SDK's client writes.

server   start and stop: the link, the follower, uvicorn
app      the application: routes, limits, errors, documentation
desk     what routes work with: client, follower, limits, read-your-writes
auth     bearer tokens, roles, and who may come in without one
errors   one shape for every error body
shapes   the earlier systems' words for states, jobs, nodes and numbers
routes/  one file for each group of paths
"""
