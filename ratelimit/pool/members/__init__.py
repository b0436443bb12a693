"""What is given, and what becomes known, of each member of a pool.

Owns no more than its files do.
"""
