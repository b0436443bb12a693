"""What the server's word changes: prices, levels, limits, pauses; one policy a file.

Owns every decision that follows from an answer. Must never read bytes of a response
(`feedback/` does) nor wait.
"""
