"""`ratelimit demo`: a workload, three clients, and a server that enforces its limits.

Owns no code: `race` is the command, `clients` what it compares, `plan` the limits,
`workload` the calls, `backend` the server.
"""
