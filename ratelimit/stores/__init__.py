"""Where the buckets of one family of models live.

Owns atomicity: a store debits all buckets of a call in one step, or none. Must never
wait, read a clock or know a queue: a store answers when to ask again.
"""
