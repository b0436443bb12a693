"""How a call gets its turn: the queue, the flow that is written once, and its drivers.

Owns waiting. Must never know a request body, a model or what a server says.
"""
