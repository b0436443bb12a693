r"""Find the settings that finish soonest with no 429, and what holds a traffic back.

    python benchmarks/tune.py --calls my_requests.jsonl --model gpt-4o --tier 1 \
        --json out.json --report report/
    python benchmarks/tune.py --requests 5000 --prompt-tokens 800±600 \
        --output-tokens 150±100 --max-tokens 1000 --rpm 500 --tpm 200k
    python benchmarks/tune.py --calls my_requests.jsonl --headers headers.txt
    python benchmarks/tune.py --validate --json out.json

A file has one JSON object a line: a request body, a line of the Batch API, or a
recorded call with its `usage`; beside the body a line may name its `priority`
(interactive, normal, batch) and its `timestamp` (replayed with --arrivals recorded).
Whole runs are simulated on a virtual clock with the real limiter and a server that
enforces its limits; nothing is sent over the network. --validate sends calls with the
settings of out.json over HTTP, in real time, for half a minute.

Owns the order of the work and what the terminal shows.
Must never contain the search, the simulation or the wording of an advice.

Exit status: 0; 1 when a validation strays from its prediction or meets a 429; 2 when
the input cannot be used, in one sentence.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script sees its own folder only

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.tuning import sources, words
from benchmarks.tuning.advice import Advice, advise
from benchmarks.tuning.options import parser_of
from benchmarks.tuning.plans import Plan
from benchmarks.tuning.quota import KNOWN, limits_for, named, other_tiers
from benchmarks.tuning.rehearsal import NEAR, rehearsal, rehearse
from benchmarks.tuning.world import World
from ratelimit.commands.show import table
from ratelimit.errors import LimiterError
from ratelimit.limits import Limit
from ratelimit.testing import Latency
from ratelimit.testing.quotas import Quotas
from ratelimit.testing.variants import rules_of

EXAMPLE: Final = (
    "--requests 300 --prompt-tokens 800±600 --output-tokens 150±100 --max-tokens 1000"
    " --model gpt-4o --tier 1"
)
"""The options of a run that was given none."""
EXPECTED_RUNS: Final = 130
"""Length of the progress bar."""


class Unusable(LimiterError):
    """The input cannot be used; the text is one sentence with the remedy."""


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
    options = parser_of(__doc__ or "").parse_args(given)
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
            f"The table of tiers has none above for {_model(plan)}: multiples of its limits are"
            " compared (--compare names further limits)."
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
            "there is no traffic to tune for: name a file with --calls, or describe it with"
            " --requests"
        )
    found = sources.arranged(found, options.arrivals, options.interactive)
    if (needed := max(item.reserve for item in found.items)) > largest:
        raise Unusable(
            f"the largest of these requests needs {needed:,} tokens, more than the limit of"
            f" {largest:,.12g} lets through at all: lower --max-tokens or --prompt-tokens, or"
            " give a"
            " higher limit"
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
        f"{len(document['calls'])} calls over HTTP against ratelimit serve,"
        f" {words.limits(document['limits'])}, about {document['predicted']:.0f} s ...",
        highlight=False,
        soft_wrap=True,
    )
    seen = rehearse(document)
    off = seen.seconds / document["predicted"] - 1
    good = abs(off) <= NEAR and not seen.rejected and not seen.failed
    console.print(
        f"Predicted {document['predicted']:.1f} s, took {seen.seconds:.1f} s ({off:+.1%});"
        f" {seen.rejected} 429s, {seen.failed} failed:"
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
            "each knob alone, the rest as recommended",
            columns,
            words.sensitivity(advice),
            texts=3,
        )
    )
    kinds = ("", "a server that counts otherwise", "takes", "429s")
    console.print(table("the same settings elsewhere", kinds, words.servers(advice), texts=2))


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


if __name__ == "__main__":
    sys.exit(main())
