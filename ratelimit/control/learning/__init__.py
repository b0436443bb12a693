"""What the answers of one family's server show of it, as figures that steer.

Owns estimates of what no document says: how the server counts, how fast it lets calls
through, what others take. Must never touch a store, a queue or a clock.
"""
