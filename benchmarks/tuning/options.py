"""The options of `tune.py`, and how their values are read.

Owns the argument parser and the notations: 30k, 10%, 800±600, 0.02-0.1.
Must never read files or start a simulation.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import NoReturn

from benchmarks.tuning.quota import KNOWN


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that reports an error in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and exit with 2."""
        self.exit(2, f"tune: {message} (see --help)\n")


def parser_of(description: str) -> Parser:
    """Make the parser of `tune.py`; `description` heads its help."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("the traffic")
    what.add_argument(
        "--calls", type=Path, metavar="FILE", help="requests, plain or gzip, one JSON object a line"
    )
    what.add_argument(
        "--model",
        metavar="NAME",
        help="the limits are those of this model; calls of other models are left out",
    )
    what.add_argument(
        "--every-model", action="store_true", help="count the calls of all models as this one's"
    )
    what.add_argument("--skip-bad", action="store_true", help="leave out lines that cannot be used")
    what.add_argument(
        "--requests",
        type=_whole,
        metavar="N",
        help="this many requests, described by the following",
    )
    what.add_argument(
        "--prompt-tokens",
        type=_about,
        default=(800.0, 600.0),
        metavar="M±D",
        help="mean and deviation (default: 800±600)",
    )
    what.add_argument(
        "--output-tokens",
        type=_about,
        default=(150.0, 100.0),
        metavar="M±D",
        help="mean and deviation (default: 150±100)",
    )
    what.add_argument(
        "--max-tokens", type=_whole, metavar="N", help="max_tokens of each (default: none)"
    )
    what.add_argument(
        "--arrivals",
        default="at once",
        metavar="HOW",
        help="'at once' (default), 'recorded', or a pace such as 5/s or 300/min",
    )
    what.add_argument(
        "--interactive",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="of the calls that are urgent and come in by and by",
    )
    limits = parser.add_argument_group("the limits")
    for name in KNOWN:
        limits.add_argument(f"--{name}", type=_amount, metavar="N")
    limits.add_argument("--tier", help="OpenAI's limits of --model at a usage tier: free, 1 to 5")
    limits.add_argument(
        "--headers",
        type=Path,
        metavar="FILE",
        help="headers of one answer, to read the limits from",
    )
    limits.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="LIMITS",
        help="other limits, as '5000 rpm and 450k tpm'; repeatable",
    )
    world = parser.add_argument_group("the server")
    world.add_argument(
        "--variant",
        default="P",
        help="how it counts, see ratelimit.testing.variants (default: P, OpenAI today)",
    )
    world.add_argument(
        "--first-token",
        type=_seconds,
        default=0.3,
        metavar="S",
        help="seconds to the first token (default: 0.3)",
    )
    world.add_argument(
        "--tokens-per-second",
        type=_amount,
        default=80.0,
        metavar="N",
        help="of an answer (default: 80)",
    )
    world.add_argument(
        "--network",
        type=_range,
        default=(0.02, 0.1),
        metavar="S-S",
        help="seconds one way (default: 0.02-0.1)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write everything there; with --validate: the result to validate",
    )
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write one page with plots there, index.html"
    )
    parser.add_argument(
        "--validate", action="store_true", help="run the settings of --json over HTTP, in real time"
    )
    return parser


def _amount(text: str) -> float:
    scale = {"k": 1e3, "m": 1e6}.get(text[-1:].lower(), 1)
    return (
        _number(text[:-1] if scale != 1 else text, 1e-6, "a number above 0, such as 500 or 30k")
        * scale
    )


def _whole(text: str) -> int:
    return round(_number(text, 1, "a whole number of at least 1"))


def _seconds(text: str) -> float:
    return _number(text, 0, "seconds")


def _share(text: str) -> float:
    value = _number(text.removesuffix("%"), 0, "a share such as 0.1 or 10%") / (
        100 if text.endswith("%") else 1
    )
    if value >= 1:
        raise argparse.ArgumentTypeError(
            f"expected a share below 1, such as 0.1 or 10%, not {text!r}"
        )
    return value


def _about(text: str) -> tuple[float, float]:
    mean, deviation = _pair(re.split(r"±|\+-|\+/-", text), "0", "tokens such as 800±600")
    return _number(mean, 1, "tokens such as 800±600"), _number(
        deviation, 0, "tokens such as 800±600"
    )


def _range(text: str) -> tuple[float, float]:
    least, most = _pair(text.split("-"), text, "seconds such as 0.02-0.1")
    found = (
        _number(least, 0, "seconds such as 0.02-0.1"),
        _number(most, 0, "seconds such as 0.02-0.1"),
    )
    return min(found), max(found)


def _pair(parts: list[str], default: str, what: str) -> tuple[str, str]:
    """Return the two parts of a text; the second one may be missing."""
    first, second, *more = [*parts, default][: max(len(parts), 2)]
    if more:
        raise argparse.ArgumentTypeError(f"expected {what}, not {len(parts)} of them")
    return first, second


def _number(text: str, least: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= 1e12:
        raise argparse.ArgumentTypeError(f"expected {what}, not {text!r}")
    return value
