"""Where calls come from: the decorator, streams, and the client's HTTP transport.

Owns the translation between a user's call and one lease. Must never calculate with
limits.
"""
