"""`ratelimit top`: a quota that processes share.

Owns nothing itself: `look.py` reads the files, `command.py` shows what they hold. Must
never lock a file or change a level.
"""
