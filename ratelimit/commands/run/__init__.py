"""`ratelimit run`: a file of requests in, a file of answers out.

Owns no code: `command` is the order of things, `client` what it asks with, `session`
the run itself, `meter` what it has come to, `display` and `summary` how that is shown,
`ending` why it could not go on, `forecast` the dry run.
"""
