"""The command `ratelimit` until it is loaded: that takes half a second, and Ctrl-C may come meanwhile.

Owns that moment and nothing else. Stands beside the package, as importing a module inside would load the package first. Must never come in: an
import at the top, which would again be a moment at which nobody hears of Ctrl-C.
"""


def main() -> int:
    """Run the command line; return its exit status, 130 for Ctrl-C at any time."""
    try:
        from ratelimit.cli import main as command  # noqa: PLC0415  # what takes the time

        return command()
    except KeyboardInterrupt:
        return 130
