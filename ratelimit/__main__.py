"""`python -m ratelimit`: the command line, where its script is not on the path.

Owns nothing else. Must never do what a command does.
"""

import sys

from ratelimit.cli import main

sys.exit(main())
