"""The arguments of the command line.

Owns their names and their help; a misspelled one is an error that names the right one.
Must never import what a bare installation lacks, or do what a command does.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from ratelimit.commands.amounts import (
    read_budget,
    read_limit,
    read_price,
    read_seconds,
    read_whole,
)
from ratelimit.installation import version
from ratelimit.limits import SHORT_FORMS

_UNKNOWN: Final = re.compile(r"unrecognized arguments: (?P<argument>--?[\w-]+)")
_CHOICE: Final = re.compile(r"invalid choice: '(?P<given>[^']*)' \(choose from (?P<known>.*)\)")

CALLS_HELP: Final = "JSONL of request bodies or Batch API lines, plain or gzip"


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` with errors of one sentence, which names what was meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self.commands: dict[str, Parser] = {}

    def parse_args(  # type: ignore[override]  # without a namespace of the caller's
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """Parse; an unknown option is the error of the command that it was given to."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            parser = self.commands.get(getattr(found, "command", ""), self)
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Print the sentence and exit with 2."""
        meant = self._meant(message)
        self.exit(2, f"{self.prog}: {message}{meant} (see {self.prog} --help)\n")

    def _meant(self, message: str) -> str:
        """Return a guess at what was meant by an unknown option or choice."""
        option = _UNKNOWN.match(message)
        choice = _CHOICE.search(message)
        near: list[str] = []
        if option is not None:
            near = difflib.get_close_matches(option["argument"], self._option_string_actions, 1)
        elif choice is not None:
            known = re.findall(r"[\w.-]+", choice["known"])
            near = difflib.get_close_matches(choice["given"], known, 1)
        return f"; did you mean {near[0]}?" if near else ""


def make_parser() -> Parser:
    """Make the parser of the whole command line."""
    parser = Parser(
        prog="ratelimit",
        description="Client-side rate limiting for the OpenAI API: calls wait instead of getting"
        " a 429.",
    )
    parser.add_argument("--version", action="version", version=f"ratelimit {version()}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command", parser_class=Parser
    )
    _add_demo(commands)
    _add_estimate(commands)
    _add_run(commands)
    _add_serve(commands)
    _add_top(commands)
    parser.commands = dict(commands.choices)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="send one workload three ways to a server that enforces its limits",
        description="Send one workload to a local server that enforces OpenAI's limits, three"
        " times: through a semaphore, with exponential back-off, and through the limiter. Nothing"
        " leaves this machine.",
    )
    demo.add_argument(
        "--calls", type=Path, metavar="FILE", help=f"your own calls: {CALLS_HELP}; ours by default"
    )
    demo.add_argument(
        "--limit",
        type=read_whole(1),
        default=200,
        metavar="N",
        help="send at most N calls of the file, or of ours (default: 200)",
    )
    _add_limits(
        demo,
        ("--rpm", "requests per minute (default: such that the calls exceed a full bucket)", None),
        ("--tpm", "tokens per minute (default: likewise)", None),
    )
    demo.add_argument(
        "--variant",
        choices=("P", "I", "A"),
        default="P",
        help="how the server counts: P charges the input and settles to the usage (OpenAI today,"
        " the default); I charges the input; A charges input and max_tokens permanently (Azure's"
        " documentation)",
    )
    _add_seed(demo)
    _add_json(demo, "write the figures there")


def _add_estimate(commands: Any) -> None:
    estimate = commands.add_parser(
        "estimate",
        help="say what a file of calls costs, and how long limits make it take",
        description="Count the tokens of a file of calls, sending nothing.",
    )
    estimate.add_argument("file", type=Path, metavar="FILE", help=CALLS_HELP)
    _add_limits(
        estimate,
        ("--rpm", "requests per minute, for the time", None),
        ("--tpm", "tokens per minute, for the time", None),
    )
    estimate.add_argument(
        "--each", action="store_true", help="show each call, not only the sum of each model"
    )
    _add_json(estimate, "write the figures of each call there")


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the fake server, for any client of yours",
        description="Serve an OpenAI API with invented answers and limits that are really"
        " enforced, until Ctrl-C.",
    )
    serve.add_argument(
        "--variant",
        default="P",
        help="letters joined by +, see ratelimit.testing.variants (default: P)",
    )
    _add_limits(
        serve,
        ("--rpm", "requests per minute (default: 500)", 500.0),
        ("--tpm", "tokens per minute (default: 30000)", 30_000.0),
        ("--rpd", "requests per day (default: no limit)", None),
        ("--tpd", "tokens per day (default: no limit)", None),
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)"
    )
    serve.add_argument(
        "--port",
        type=read_whole(0, 65_535),
        default=8_080,
        metavar="N",
        help="port, 0 for any free one (default: 8080)",
    )
    _add_seed(serve)


def _add_top(commands: Any) -> None:
    top = commands.add_parser(
        "top",
        help="show a quota that processes share: levels, who waits, what is in flight",
        description="Show what is left of a shared quota and who uses it, until Ctrl-C. It is"
        " read without locking: nobody is held up.",
    )
    top.add_argument(
        "--store",
        required=True,
        metavar="STORE",
        help='what programs name: RateLimiter(store="redis://..." or "file:FOLDER")',
    )
    top.add_argument("--json", action="store_true", help="print the figures of one look, and end")


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="ask all requests of a file, at the full rate of the limits",
        description="Ask every request of a file and append the answers to another, in the form of"
        " the Batch API. Run the same command again to go on where it ended, however it ended."
        " Lines without a custom_id are known by their place: append to the file, insert nothing."
        " The API key is read from OPENAI_API_KEY.",
    )
    run.add_argument("file", type=Path, metavar="FILE", help=CALLS_HELP)
    run.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="results are appended there, one line each",
    )
    learned = "of all models together (default: learned from the server)"
    _add_limits(
        run,
        ("--rpm", f"requests per minute, {learned}", None),
        ("--tpm", f"tokens per minute, {learned}", None),
        ("--rpd", f"requests per day, {learned}", None),
        ("--tpd", f"tokens per day, {learned}", None),
    )
    run.add_argument(
        "--tier",
        help="limits of an OpenAI usage tier: free, 1 to 5; see ratelimit/commands/tiers.py for"
        " what it knows",
    )
    run.add_argument(
        "--model", metavar="NAME", help="send this in place of the model that each request names"
    )
    run.add_argument(
        "--endpoint",
        metavar="NAME",
        help="where bodies are asked that do not show it, such as embeddings or /v1/rerank; a line"
        ' with a "url" keeps its own',
    )
    run.add_argument(
        "--base-url", metavar="URL", help="the API (default: OPENAI_BASE_URL, else OpenAI)"
    )
    run.add_argument(
        "--concurrency",
        type=read_whole(1),
        metavar="N",
        help="send at most N requests at once (default: as the limits ask for)",
    )
    run.add_argument(
        "--store",
        metavar="STORE",
        help="share one quota with all runs and programs that name the same: redis://HOST:PORT/0,"
        " or file:FOLDER on this machine",
    )
    run.add_argument(
        "--pool",
        type=Path,
        metavar="FILE",
        help="TOML with several members, each with its key, limits and models; calls go to the"
        " first that can pay (docs/pool.md)",
    )
    run.add_argument(
        "--priority",
        choices=("interactive", "normal", "batch"),
        default="batch",
        help="patience with other calls (default: batch)",
    )
    run.add_argument(
        "--patience",
        type=read_seconds,
        metavar="TIME",
        help="time to wait for a server that is away, such as 90s, 10m or 2h (default: 10m once it"
        " has answered; before that the run ends at once)",
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
        "--live",
        action="store_true",
        help="on a terminal, show levels, waits and 429s below the progress",
    )
    run.add_argument(
        "--price-in",
        type=read_price,
        metavar="P",
        help="price of a million prompt tokens, to show the cost; with --price-out",
    )
    run.add_argument(
        "--price-out",
        type=read_price,
        metavar="P",
        help="price of a million output tokens; 0 where there are none, as of embeddings",
    )
    run.add_argument(
        "--price-cached",
        type=read_price,
        metavar="P",
        help="price of a million prompt tokens that came from a cache (default: --price-in)",
    )
    run.add_argument(
        "--budget",
        type=read_budget,
        metavar="AMOUNT",
        help='end the run, to be continued, before it costs more: "2M tokens", "500 requests", or'
        " 5.00 in the currency of the prices; results that are there already count (status 3)",
    )
    run.add_argument(
        "--control",
        type=Path,
        metavar="FILE",
        help="obey this file while the run goes on: lines such as pause = true, rpm = 100,"
        ' tpm = "30k"; what it does not name is as the command says',
    )
    _add_json(run, "write the figures there")


def _add_limits(parser: Parser, *options: tuple[str, str, float | None]) -> None:
    for option, text, default in options:
        name, _ = SHORT_FORMS[option.removeprefix("--")]
        parser.add_argument(option, type=read_limit(name), default=default, metavar="N", help=text)


def _add_seed(parser: Parser) -> None:
    parser.add_argument(
        "--seed",
        type=read_whole(0),
        default=0,
        metavar="N",
        help="of everything random (default: 0)",
    )


def _add_json(parser: Parser, text: str) -> None:
    parser.add_argument("--json", dest="json_path", type=Path, metavar="FILE", help=text)
