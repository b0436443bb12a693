"""Which settings finish soonest with no 429, how long will it take, and what holds me
back? Give it your traffic, get your settings.

    python benchmarks/tune.py --calls my_requests.jsonl --model gpt-4o --tier 1 --json out.json --report report/
    python benchmarks/tune.py --requests 5000 --prompt-tokens 800±600 --output-tokens 150±100 --max-tokens 1000 --rpm 500 --tpm 200k
    python benchmarks/tune.py --calls my_requests.jsonl --headers one_answers_headers.txt --interactive 0.1
    python benchmarks/tune.py --validate --json out.json           # the settings of out.json over real HTTP, in real time, half a minute

A file has one JSON object a line: a request body, a line of the Batch API, or a
recorded call with its `usage`; beside the body a line may say its `priority`
(interactive, normal, batch) and when it came (`timestamp`, replayed with --arrivals
recorded). Whole runs are simulated on a virtual clock with the real limiter and a
server that enforces its limits; nothing leaves this machine.

Exit status: 0; 1 when a validation strays from its prediction or meets a 429; 2 when
the input cannot be used, in one sentence.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

sys.path.append(str(Path(__file__).resolve().parents[1]))  # as a script it sees its own folder only

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.tuning import sources, words
from benchmarks.tuning.advice import Advice, advise
from benchmarks.tuning.plans import Plan
from benchmarks.tuning.quota import KNOWN, limits_for, named, other_tiers
from benchmarks.tuning.rehearsal import NEAR, rehearsal, rehearse
from benchmarks.tuning.simulate import World
from ratelimit.commands.show import table
from ratelimit.errors import LimiterError
from ratelimit.limits import Limit
from ratelimit.testing import Latency
from ratelimit.testing.quotas import Quotas
from ratelimit.testing.variants import rules_of

EXAMPLE = "--requests 300 --prompt-tokens 800±600 --output-tokens 150±100 --max-tokens 1000 --model gpt-4o --tier 1"
EXPECTED_RUNS = 130
"""What the progress bar reckons with."""


class Unusable(LimiterError):
    """The input cannot be used; the text is one sentence that says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Advise, or validate an advice; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    console = Console()
    if not given:
        console.print(
            f"No traffic was given; this is the example {EXAMPLE}\n",
            highlight=False,
            soft_wrap=True,
        )
        given = EXAMPLE.split()
    options = _parser().parse_args(given)
    try:
        if options.validate:
            return _validate(console, options.json)
        return _tune(console, options)
    except LimiterError as error:
        print(f"tune: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _tune(console: Console, options: argparse.Namespace) -> int:
    started = time.monotonic()
    plan = _plan(options)
    for path in (options.json, options.report and options.report / "index.html"):
        _writable(path)
    tiers = {text: _compared(text) for text in options.compare} or other_tiers(
        options.tier, _model(plan), plan.world.limits
    )
    notes = list(plan.traffic.notes)
    if options.tier and not options.compare and not any(name.startswith("tier") for name in tiers):
        notes.append(
            f"The table of tiers knows none above for {_model(plan)}: multiples of its limits are compared (--compare names others)."
        )
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    with _progress() as ran:
        advice = advise(plan, tiers, ran)
    document = words.document(advice) | {"rehearsal": rehearsal(plan, advice.settings)}
    document["seconds"] = round(time.monotonic() - started, 1)
    _show(console, advice)
    if options.json:
        options.json.write_text(
            json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
    if options.report:
        from benchmarks.tuning.report import page  # noqa: PLC0415  # matplotlib takes a second to load

        (options.report / "index.html").write_text(page(advice), encoding="utf-8")
        console.print(
            f"The report: {options.report / 'index.html'}", highlight=False, soft_wrap=True
        )
    console.print(
        f"{advice.runs} runs of the limiter in {document['seconds']:.0f} s.", highlight=False
    )
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    given = {name: getattr(options, name) for name in KNOWN}
    limits = limits_for(given, options.tier, options.model, options.headers)
    latency = Latency(
        base=options.first_token, per_token=1 / options.tokens_per_second, jitter=options.network
    )
    world = World(limits, options.variant, latency)
    quotas: dict[str, float | None] = {"rpm": None, "tpm": None, **limits}
    dimensions = Quotas(
        quotas, None, None, rules=rules_of(options.variant), request_window=10.0
    ).dimensions("")
    largest = min((each.limit for each in dimensions if each.unit == "tokens"), default=math.inf)
    if options.calls is not None:
        found = sources.read(
            options.calls,
            model=options.model,
            every_model=options.every_model,
            skip_bad=options.skip_bad,
            largest=largest,
        )
    elif options.requests is not None:
        found = sources.described(
            options.requests,
            options.prompt_tokens,
            options.output_tokens,
            options.max_tokens,
            options.model or "gpt-4o",
        )
    else:
        raise Unusable(
            "there is no traffic to tune for: name a file with --calls, or describe it with --requests"
        )
    found = sources.arranged(found, options.arrivals, options.interactive)
    if (needed := max(item.reserve for item in found.items)) > largest:
        raise Unusable(
            f"the largest of these requests needs {needed:,} tokens, more than the limit of {largest:,.12g} lets through at all: lower"
            " --max-tokens or --prompt-tokens, or give a higher limit"
        )
    return Plan(found, world)


def _model(plan: Plan) -> str:
    return plan.traffic.items[0].model


def _compared(text: str) -> dict[str, float]:
    return named(Limit.parse(part) for part in text.split(" and "))


def _validate(console: Console, path: Path | None) -> int:
    if path is None:
        raise Unusable("--validate needs the result of an earlier run: name it with --json")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))["rehearsal"]
    except OSError as error:
        raise Unusable(
            f"cannot read {path}: {error.strerror}; make it with --json in a run without --validate"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise Unusable(
            f"{path} is no result of this script; make one with --json in a run without --validate"
        ) from None
    console.print(
        f"{len(document['calls'])} calls over HTTP against ratelimit serve, {words.limits(document['limits'])}, about"
        f" {document['predicted']:.0f} s ...",
        highlight=False,
        soft_wrap=True,
    )
    seen = rehearse(document)
    off = seen.seconds / document["predicted"] - 1
    good = abs(off) <= NEAR and not seen.rejected and not seen.failed
    console.print(
        f"Predicted {document['predicted']:.1f} s, took {seen.seconds:.1f} s ({off:+.1%}); {seen.rejected} 429s, {seen.failed} failed:"
        f" {'as predicted' if good else 'NOT as predicted'}.",
        highlight=False,
        soft_wrap=True,
    )
    result = {
        "predicted": document["predicted"],
        "seconds": round(seen.seconds, 3),
        "off": round(off, 4),
    }
    result |= {"rejected": seen.rejected, "failed": seen.failed, "as_predicted": good}
    whole = json.loads(path.read_text(encoding="utf-8")) | {"validation": result}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


def _show(console: Console, advice: Advice) -> None:
    console.print()
    console.print(words.code(advice), highlight=False, style="bold", markup=False)
    console.print()
    for sentence in words.sentences(advice):
        console.print(f"- {sentence}", highlight=False, markup=False)
    console.print()
    columns = ("knob", "recommended", "what other values cost")
    console.print(
        table(
            "each knob alone, the others as recommended",
            columns,
            words.sensitivity(advice),
            texts=3,
        )
    )
    others = ("", "a server that counts otherwise", "takes", "429s")
    console.print(table("the same settings elsewhere", others, words.servers(advice), texts=2))


@contextmanager
def _progress() -> Iterator[Callable[[], object]]:
    console = Console(stderr=True)
    done = 0
    if not console.is_terminal:

        def count() -> None:
            nonlocal done
            done += 1
            if done % 50 == 0:
                console.print(f"{done} runs", highlight=False)

        yield count
        return
    columns = (
        TextColumn("simulating"),
        BarColumn(),
        TextColumn("{task.completed} runs"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=EXPECTED_RUNS)
        yield lambda: progress.advance(bar)


def _writable(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise Unusable(
            f"cannot write {path}: {error.strerror or error}; name another place"
        ) from None


# ---- arguments --------------------------------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and exit with 2."""
        self.exit(2, f"tune: {message} (see --help)\n")


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("the traffic")
    what.add_argument(
        "--calls", type=Path, metavar="FILE", help="requests, plain or gzip, one JSON object a line"
    )
    what.add_argument(
        "--model", metavar="NAME", help="whose limits hold; the calls of other models are left out"
    )
    what.add_argument(
        "--every-model", action="store_true", help="count the calls of all models as this one's"
    )
    what.add_argument("--skip-bad", action="store_true", help="leave out lines that cannot be used")
    what.add_argument(
        "--requests", type=_whole, metavar="N", help="so many requests, described by the following"
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
    mean, deviation, *_ = [*re.split(r"±|\+-|\+/-", text), "0"]
    return _number(mean, 1, "tokens such as 800±600"), _number(
        deviation, 0, "tokens such as 800±600"
    )


def _range(text: str) -> tuple[float, float]:
    least, most, *_ = [*text.split("-"), text]
    found = (
        _number(least, 0, "seconds such as 0.02-0.1"),
        _number(most, 0, "seconds such as 0.02-0.1"),
    )
    return min(found), max(found)


def _number(text: str, least: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= 1e12:
        raise argparse.ArgumentTypeError(f"expected {what}, not {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
