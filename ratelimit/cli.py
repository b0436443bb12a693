"""The command line: `ratelimit demo`, `run`, `estimate`, `serve`, `top`.

Owns the choice of the command, the exit statuses and the promise of no traceback. Must
never do what a command does, or import at the top what a bare installation lacks or
what takes long: `main` loads a command, so that Ctrl-C finds it at work.

Exit statuses: 0 done, 1 ran and failed, 2 the arguments or the input cannot be used
(one sentence on stderr), 3 the budget of `run` is spent, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Sequence

from ratelimit._clash import warn_of_clash
from ratelimit.commands import CommandError
from ratelimit.commands.arguments import make_parser
from ratelimit.commands.streams import (
    OutputLost,
    accept_any_text,
    flush_output,
    print_note,
)
from ratelimit.errors import LimiterError
from ratelimit.installation import install_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    accept_any_text()
    warn_of_clash()
    try:
        try:
            return _run(make_parser().parse_args(arguments))
        finally:
            flush_output()  # `--help` and `--version` leave their text to the end
    except KeyboardInterrupt:
        return 130
    except OutputLost as error:
        # a reader that has gone, as with `| head`, has seen enough
        if not error.is_unread:
            print_note(f"ratelimit: {error}")
        return 1


def _run(chosen: argparse.Namespace) -> int:
    """Run the command; show its refusals and warnings as sentences."""
    options = vars(chosen)
    command = options.pop("command")
    with warnings.catch_warnings():
        warnings.showwarning = _note
        try:
            return _call(command, options)
        except (CommandError, LimiterError) as error:
            print_note(f"ratelimit {command}: {error}")
            return 2


def _call(command: str, options: dict[str, object]) -> int:
    match command:
        case "demo":
            _need("rich", "tenacity", "uvicorn")
            from ratelimit.commands.demo.race import (  # noqa: PLC0415  # it imports extras
                DemoSettings,
                demo,
            )

            return demo(DemoSettings(**options))  # type: ignore[arg-type]  # as parsed
        case "estimate":
            _need("rich")
            from ratelimit.commands.estimate import estimate  # noqa: PLC0415  # it imports extras

            path = options.pop("file")
            return estimate(path, **options)  # type: ignore[arg-type]  # as parsed
        case "run":
            _need("filelock", "rich")
            from ratelimit.commands.run.command import run  # noqa: PLC0415  # it imports extras
            from ratelimit.commands.run.settings import RunSettings  # noqa: PLC0415

            return run(RunSettings(**options))  # type: ignore[arg-type]  # as parsed
        case "top":
            _need("filelock", "rich")
            from ratelimit.commands.top.command import top  # noqa: PLC0415  # it imports extras

            return top(**options)  # type: ignore[arg-type]  # as parsed
        case _:
            _need("uvicorn")
            from ratelimit.commands.serve import serve  # noqa: PLC0415  # it imports extras

            return serve(**options)  # type: ignore[arg-type]  # as parsed


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as a sentence, without the line of code it came from."""
    print_note(f"note: {message}")


def _need(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise CommandError(f"this command needs {', '.join(missing)}: {install_command('cli')}")
