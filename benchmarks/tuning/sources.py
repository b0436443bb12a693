"""Where the calls to be tuned for come from: a file, or a description.

Owns reading and refusing, drawing what is only described, and what the command line
adds (how calls come in, which are urgent). Must never contain what a seed decides
(`traffic.py`), limits, servers, clocks, settings of the limiter.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from benchmarks.tuning.traffic import USUAL, Item, Spread, Traffic
from ratelimit.batch.lines import parse_line, read_lines
from ratelimit.batch.requests import read_request
from ratelimit.errors import InvalidArgument
from ratelimit.estimate import Estimator
from ratelimit.families import pattern_of
from ratelimit.feedback import read_usage
from ratelimit.testing.answers import words
from ratelimit.testing.charges import hidden_prompt

PRIORITIES: Final = ("interactive", "normal", "batch")
MOMENTS: Final = ("arrival", "timestamp", "created_at", "created", "time", "date")
"""Fields of a line that may say when its call came: seconds, ISO 8601, or an HTTP date.
"""

HIDDEN_BILLED: Final = (
    dt.datetime(2025, 3, 1, tzinfo=dt.UTC).timestamp(),
    dt.datetime(2025, 4, 7, tzinfo=dt.UTC).timestamp(),
)
"""Seconds since the epoch between which Responses billed the hidden prompt: most of
the 22 recorded calls of these weeks are billed 18 or 216 tokens more than they hold.
"""


def described(
    requests: int,
    prompt: tuple[float, float],
    output: tuple[float, float],
    most: int | None,
    model: str,
) -> Traffic:
    """Draw chat calls by mean and deviation of their prompts and answers, in tokens.

    :param most: `max_tokens` of all.
    """
    estimator, generator = Estimator(), random.Random("described")
    lengths = Spread.around(*prompt)

    @cache
    def item(tokens: int) -> Item:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": words(0, max(tokens - 7, 1)).lstrip()}],
        }
        if most is not None:
            body["max_tokens"] = most
        counted = estimator.estimate(body)
        return Item(body, "chat.completions", model, counted, counted.prompt_tokens, most=most)

    return Traffic(
        [item(lengths.draw(generator)) for _ in range(requests)], spread=Spread.around(*output)
    )


def read(
    path: Path, *, model: str | None, every_model: bool, skip_bad: bool, largest: float
) -> Traffic:
    """Read a file of request bodies, Batch API lines or recorded calls.

    :param model: whose calls count: those of this model, its snapshots, and those that
        name none.
    :param every_model: all count as its calls.
    :param skip_bad: go on behind a line that cannot be used.
    :param largest: tokens that one call may need at most. Raises `InvalidArgument`: one
        sentence that names the line and the remedy.
    """
    items, others, bad, estimator = [], Counter[str](), [], Estimator()
    for number, raw in read_lines(path):
        where = f"line {number} of {path}"
        try:
            item = _item(
                parse_line(raw, where), number, where, model, estimator, every_model=every_model
            )
            if isinstance(item, str):
                others[item] += 1
                continue
            _fitting(item, largest)
        except InvalidArgument as error:
            if not skip_bad:
                raise InvalidArgument(f"{error}; --skip-bad goes on without such lines") from None
            bad.append(str(error))
            continue
        items.append(item)
    if not items:
        raise InvalidArgument(_nothing(path, model, others, bad))
    if any(item.moment is None for item in items):
        items = [replace(item, moment=None) for item in items]
    return Traffic(items, notes=tuple(_notes(items, model, others, bad)))


def _item(
    line: Mapping[str, Any],
    number: int,
    where: str,
    model: str | None,
    estimator: Estimator,
    *,
    every_model: bool,
) -> Item | str:
    """One call, or the model of one that is another's."""
    request = read_request(line, number, where=where, model=model if every_model else None)
    named = request.model
    if (
        model is not None
        and named
        and pattern_of(named, [model]) is None
        and pattern_of(model, [named]) is None
    ):
        return named
    counted = estimator.estimate(request.body, endpoint=request.endpoint)
    usage = read_usage(line.get("usage")) if line.get("usage") else None
    priority = line.get("priority", "normal")
    if priority not in PRIORITIES:
        raise InvalidArgument(
            f'{where} has the "priority" {priority!r}; it is one of {", ".join(PRIORITIES)}'
        )
    most = (
        None
        if counted.max_output_tokens is None
        else counted.max_output_tokens // max(counted.choices, 1)
    )
    moments = (_moment(line.get(name)) for name in MOMENTS)
    moment = next((moment for moment in moments if moment is not None), None)
    prompt = counted.prompt_tokens if usage is None else usage.prompt_tokens
    return Item(
        {**request.body, "model": model or named},
        request.endpoint,
        model or named,
        counted,
        prompt,
        answer=None if usage is None else usage.output_tokens,
        most=most,
        moment=moment,
        priority=priority,
        origin=where,
        late=_late(request.endpoint, request.body, prompt, counted.prompt_tokens, moment),
    )


def _late(
    endpoint: str, body: Mapping[str, Any], billed: int, counted: int, moment: float | None
) -> int:
    """Billed prompt tokens that the server cannot charge when the call arrives.

    Two kinds are known, both of Responses: the results of built-in tools (a file
    search), which come into being while the call runs; and the hidden prompt, which was
    part of the bill until `HIDDEN_BILLED` and is charged beside it.
    """
    beyond = billed - counted
    if endpoint != "responses" or beyond <= 0:
        return 0

    if any(tool != "function" for tool in _tools(body)):
        return beyond

    hidden = hidden_prompt(body)
    dated = moment is not None and HIDDEN_BILLED[0] <= moment < HIDDEN_BILLED[1]
    if dated or beyond == hidden - 1:
        return min(hidden, billed)
    return 0


def _tools(body: Mapping[str, Any]) -> Iterator[str]:
    """The types of the tools that a body offers."""
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, Mapping):
            yield str(tool.get("type"))


def _fitting(item: Item, largest: float) -> None:
    if item.reserve > largest:
        raise InvalidArgument(
            f"{item.origin} needs {item.reserve:,} tokens, more than the limit of {largest:,.12g}"
            " lets through at all: shorten it, lower its"
            " max_tokens, or give a higher limit"
        )


def _moment(said: object) -> float | None:
    """Seconds of a moment as a line says it; None when it is none."""
    if isinstance(said, (int, float)) and not isinstance(said, bool) and math.isfinite(said):
        return float(said)
    if isinstance(said, str):
        for read_text in (dt.datetime.fromisoformat, parsedate_to_datetime):
            try:
                return read_text(said).timestamp()
            except ValueError:
                continue
    return None


def _nothing(path: Path, model: str | None, others: Counter[str], bad: Sequence[str]) -> str:
    if others:
        named = ", ".join(name for name, _ in others.most_common(5))
        return (
            f"{path} holds no requests for {model}, only for {named}: name one of these as"
            " --model, or count all of them with --every-model"
        )
    if bad:
        return f"{path} holds no usable requests: {bad[0]}"
    return (
        f"{path} holds no requests: one JSON object a line is expected, such as a request body;"
        " or describe the traffic with --requests"
    )


def _notes(
    items: Sequence[Item], model: str | None, others: Counter[str], bad: Sequence[str]
) -> Iterator[str]:
    if others:
        yield (
            f"{sum(others.values()):,} requests for {len(others)} other models are left out: what"
            f" they use does not count against {model}'s"
            " limits (--every-model counts them)."
        )
    if bad:
        yield f"{len(bad):,} lines that cannot be used are left out, first: {bad[0]}."
    unknown = sum(item.answer is None and item.answers for item in items)
    if unknown:
        yield (
            f"For {unknown:,} requests nobody recorded the answer: its length is drawn around"
            f" {USUAL.median:.0f} tokens."
        )


def arranged(traffic: Traffic, arrivals: str, interactive: float) -> Traffic:
    """Say how the calls come in, and which share of them is urgent.

    :param arrivals: "at once", "recorded" (by the moments of the file), or a pace such
        as "5/s".
    """
    items = list(traffic.items)
    if interactive:
        chosen = random.Random("interactive").sample(
            range(len(items)), max(1, round(interactive * len(items)))
        )
        urgent = set(chosen)
        items = [
            replace(item, priority="interactive" if number in urgent else "batch")
            for number, item in enumerate(items)
        ]
    traffic = replace(traffic, items=items)
    if arrivals == "at once":
        return replace(traffic, pace=0.0)
    if arrivals == "recorded":
        if items[0].moment is None:
            raise InvalidArgument(
                "--arrivals recorded needs a moment in every line, under one of"
                f" {', '.join(MOMENTS)}"
            )
        return replace(traffic, pace=None)
    amount, _, unit = arrivals.partition("/")
    periods = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    try:
        pace = float(amount) / periods[unit.strip()]
    except (ValueError, KeyError):
        pace = 0.0
    if not 0 < pace < math.inf:
        raise InvalidArgument(
            "--arrivals is 'at once', 'recorded' or a pace such as 5/s or 300/min, not"
            f" {arrivals!r}"
        )
    return replace(traffic, pace=pace)
