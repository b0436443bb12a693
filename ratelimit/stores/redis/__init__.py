"""One quota for processes of many machines, in a Redis or Valkey server.

Owns the script, what goes over the wire, the connection and the store on top. Must
never let a task wait for the server otherwise than for its turn in the queue.
"""
