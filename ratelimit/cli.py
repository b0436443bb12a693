"""The command line: `ratelimit demo`, `run`, `estimate`, `serve`.

Owns the arguments, the exit statuses and the promise of no traceback. Must never come
in: what a command does (that is `commands/`), and any import at the top that a bare
installation lacks or that takes long: a command is loaded by `main`, which hears of
Ctrl-C.

Exit statuses: 0 done, 1 ran and failed, 2 the arguments or the input cannot be used
(one sentence on stderr), 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NoReturn

from ratelimit.commands import CommandError
from ratelimit.errors import LimiterError

DISTRIBUTION: Final = "ratelimit-openai"


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and exit with 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    try:
        chosen = _parser().parse_args(arguments)
        return _told(chosen)
    except KeyboardInterrupt:
        return 130
    # the reader of the output has gone, as with `| head`: it has seen enough
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _told(chosen: argparse.Namespace) -> int:
    """Run the command; what it cannot use, and what it warns of, is told in sentences."""
    with warnings.catch_warnings():
        warnings.showwarning = _note
        try:
            return _run(chosen)
        except (CommandError, LimiterError) as error:
            print(f"ratelimit {chosen.command}: {error}", file=sys.stderr)
            return 2


def _run(chosen: argparse.Namespace) -> int:
    if chosen.command == "demo":
        _need("rich", "tenacity", "uvicorn")
        from ratelimit.commands.demo import demo  # noqa: PLC0415  # what it imports is an extra

        return demo(
            calls=chosen.calls,
            limit=chosen.limit,
            rpm=chosen.rpm,
            tpm=chosen.tpm,
            variant=chosen.variant,
            seed=chosen.seed,
            json_path=chosen.json,
        )
    if chosen.command == "estimate":
        _need("rich")
        from ratelimit.commands.estimate import estimate  # noqa: PLC0415  # what it imports is an extra

        return estimate(
            chosen.file, rpm=chosen.rpm, tpm=chosen.tpm, each=chosen.each, json_path=chosen.json
        )
    if chosen.command == "run":
        _need("rich")
        from ratelimit.commands.run import Settings, run  # noqa: PLC0415  # what it imports is an extra

        return run(
            Settings(**{name: value for name, value in vars(chosen).items() if name != "command"})
        )
    _need("uvicorn")
    from ratelimit.commands.serve import serve  # noqa: PLC0415  # what it imports is an extra

    return serve(
        variant=chosen.variant,
        rpm=chosen.rpm,
        tpm=chosen.tpm,
        rpd=chosen.rpd,
        tpd=chosen.tpd,
        host=chosen.host,
        port=chosen.port,
        seed=chosen.seed,
    )


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as a sentence, without the line of our code it came from."""
    print(f"note: {message}", file=sys.stderr)


def _need(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise CommandError(
            f"this command needs {' and '.join(missing)}: pip install '{DISTRIBUTION}[cli]'"
        )


def _parser() -> Parser:
    parser = Parser(
        prog="ratelimit",
        description="Client-side rate limiting for the OpenAI API: calls wait instead of getting a 429.",
    )
    parser.add_argument("--version", action="version", version=f"ratelimit {version(DISTRIBUTION)}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command", parser_class=Parser
    )

    demo = commands.add_parser(
        "demo",
        help="send one workload three ways to a server that enforces its limits",
        description="Send one workload to a local server that enforces OpenAI's limits, three times: through a semaphore, with exponential"
        " back-off, and through the limiter. Nothing leaves this machine.",
    )
    demo.add_argument(
        "--calls",
        type=Path,
        metavar="FILE",
        help="your own calls: JSONL of request bodies or Batch API lines, plain or gzip; ours by default",
    )
    demo.add_argument(
        "--limit",
        type=_whole(1),
        default=200,
        metavar="N",
        help="at most so many calls of the file or of ours (default: 200)",
    )
    demo.add_argument(
        "--rpm",
        type=_amount,
        metavar="N",
        help="requests per minute (default: such that the calls exceed a full bucket)",
    )
    demo.add_argument(
        "--tpm", type=_amount, metavar="N", help="tokens per minute (default: likewise)"
    )
    demo.add_argument(
        "--variant",
        choices=("P", "I", "A"),
        default="P",
        help="how the server counts: P charges the input and settles to the usage (OpenAI today, the default); I charges the input; A charges"
        " input and max_tokens for good (Azure's documentation)",
    )
    demo.add_argument(
        "--seed", type=_whole(0), default=0, metavar="N", help="of everything random (default: 0)"
    )
    demo.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")

    estimate = commands.add_parser(
        "estimate",
        help="say what a file of calls costs, and how long limits make it take",
        description="Count the tokens of a file of calls, sending nothing.",
    )
    estimate.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="JSONL of request bodies or Batch API lines, plain or gzip",
    )
    estimate.add_argument(
        "--rpm", type=_amount, metavar="N", help="requests per minute, for the time"
    )
    estimate.add_argument(
        "--tpm", type=_amount, metavar="N", help="tokens per minute, for the time"
    )
    estimate.add_argument(
        "--each", action="store_true", help="show each call, not only the sum of each model"
    )
    estimate.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures of each call there"
    )

    _add_run(commands)

    serve = commands.add_parser(
        "serve",
        help="run the fake server, for any client of yours",
        description="Serve an OpenAI API with invented answers and limits that are really enforced, until Ctrl-C.",
    )
    serve.add_argument(
        "--variant",
        default="P",
        help="letters joined by +, see ratelimit.testing.variants (default: P)",
    )
    serve.add_argument(
        "--rpm", type=_amount, default=500, metavar="N", help="requests per minute (default: 500)"
    )
    serve.add_argument(
        "--tpm",
        type=_amount,
        default=30_000,
        metavar="N",
        help="tokens per minute (default: 30000)",
    )
    serve.add_argument(
        "--rpd", type=_amount, metavar="N", help="requests per day (default: no limit)"
    )
    serve.add_argument(
        "--tpd", type=_amount, metavar="N", help="tokens per day (default: no limit)"
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)"
    )
    serve.add_argument(
        "--port",
        type=_whole(0, 65_535),
        default=8_080,
        metavar="N",
        help="port, 0 for any free one (default: 8080)",
    )
    serve.add_argument(
        "--seed", type=_whole(0), default=0, metavar="N", help="of everything random (default: 0)"
    )
    return parser


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="ask all requests of a file, at the full rate of the limits",
        description="Ask every request of a file and append the answers to another, in the form of the Batch API. Run the same command again to"
        " go on where it ended, however it ended. The API key is read from OPENAI_API_KEY.",
    )
    run.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="JSONL of request bodies or Batch API lines, plain or gzip",
    )
    run.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="results are appended there, one line each",
    )
    for name, what in (
        ("rpm", "requests per minute"),
        ("tpm", "tokens per minute"),
        ("rpd", "requests per day"),
        ("tpd", "tokens per day"),
    ):
        run.add_argument(
            f"--{name}",
            type=_amount,
            metavar="N",
            help=f"{what}, of all models together (default: learned from the server)",
        )
    run.add_argument(
        "--tier",
        help="limits of an OpenAI usage tier: free, 1 to 5; see ratelimit/tiers.py for what it knows",
    )
    run.add_argument(
        "--model", metavar="NAME", help="send this in place of the model that each request names"
    )
    run.add_argument(
        "--base-url", metavar="URL", help="the API (default: OPENAI_BASE_URL, else OpenAI)"
    )
    run.add_argument(
        "--concurrency",
        type=_whole(1),
        metavar="N",
        help="at most so many requests at once (default: as the limits ask for)",
    )
    run.add_argument(
        "--priority",
        choices=("interactive", "normal", "batch"),
        default="batch",
        help="patience with others (default: batch)",
    )
    run.add_argument(
        "--retry-failed",
        action="store_true",
        help="send what failed before once more, and only that",
    )
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="send nothing; say what it takes in tokens, money and time",
    )
    run.add_argument(
        "--price-in",
        type=_amount,
        metavar="P",
        help="price of a million prompt tokens, to show the cost",
    )
    run.add_argument(
        "--price-out", type=_amount, metavar="P", help="price of a million output tokens"
    )
    run.add_argument(
        "--json", dest="json_path", type=Path, metavar="FILE", help="write the figures there"
    )


def _amount(text: str) -> float:
    """A limit: "500", "30_000", "30k", "1.5m"."""
    scale = {"k": 1e3, "m": 1e6}.get(text[-1:].lower(), 1)
    try:
        value = float(text[:-1] if scale != 1 else text) * scale
    except ValueError:
        value = math.nan
    if not 0 < value <= 1e15:
        raise argparse.ArgumentTypeError(
            f"a limit is a number above 0, such as 500 or 30k, not {text!r}"
        )
    return value


def _whole(least: int, most: int | None = None) -> Callable[[str], Any]:
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"expected a whole number {bounds}, not {text!r}")
        return value

    return read
