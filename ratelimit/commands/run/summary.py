"""What a run has come to, shown at its end and written as figures.

Owns the closing table, the sentences below it and the JSON. Must never ask or count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from ratelimit.batch.journal import Done
from ratelimit.batch.survey import Survey
from ratelimit.commands.figures import write_figures
from ratelimit.commands.run.meter import Meter
from ratelimit.commands.run.settings import RunSettings
from ratelimit.commands.show import Notes, Output, duration, money, say, table
from ratelimit.commands.streams import OutputLost
from ratelimit.events.sentences import label_of

CAPTION: Final = (
    "limits: what was used of a full bucket and its refill, from the first answer to the last"
    " sending."
)

SHOWN_REASONS: Final = 10
"""Reasons of failures that are spelled out; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the meter does not count."""

    output: Path
    earlier: int
    """Requests that had their results before."""
    failed_earlier: int
    """Failures among those."""
    stale: int
    """Failures in the output of lines that are no longer in the file."""
    reasons: Counter[str]
    """Why requests of this run failed."""
    control: str = ""
    """What the control file asks for at the end."""
    budget: str = ""
    """What is spent of the budget."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What ``--json`` asks for; the names are those of the file."""

    answered: int = 0
    failed: int = 0
    earlier: int = 0
    rejected: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    utilization: Mapping[str, float] = field(default_factory=dict)
    utilization_of_the_whole_time: Mapping[str, float] = field(default_factory=dict)


def show_summary(settings: RunSettings, meter: Meter, outcome: Outcome) -> None:
    """Print the table and what is to be known about failures; write the figures."""
    rows = [
        ("answered", f"{meter.done - meter.failed:,}"),
        ("failed", f"{meter.failed:,}"),
        ("results from before", f"{outcome.earlier:,}"),
        ("left for another run", f"{meter.left - meter.done:,}"),
        ("429s", f"{meter.refused:,}"),
        ("time", duration(meter.seconds)),
        ("tokens in", f"{meter.prompt_tokens:,}"),
        ("tokens out", f"{meter.output_tokens:,}"),
    ]
    shares = meter.share()
    rows += [
        (f"of the limit of {name} per {duration(per)}", f"{share:.0%}")
        for (name, per), share in shares.items()
    ]
    cost = meter.cost
    if cost is not None:
        rows.append(("cost", money(cost)))
    if outcome.budget:
        rows.append(("budget", outcome.budget))
    if outcome.control:
        rows.append(("by the control file", outcome.control))

    def show(console: Console) -> None:
        console.print(table(str(outcome.output), ("", ""), rows, CAPTION if shares else ""))
        _show_failures(console, meter, outcome)

    _show_somewhere(show)
    write_figures(settings.json_path, asdict(_figures(meter, outcome.earlier)))


def _show_somewhere(show: Callable[[Console], None]) -> None:
    """Show on standard output, or on standard error where that is lost.

    What the run has written is safe either way, so its exit status stays.
    """
    try:
        show(Output())
    except OutputLost as error:
        notes = Notes()
        say(notes, f"{error}; it follows here, and the file of results is not concerned")
        show(notes)


def _show_failures(console: Console, meter: Meter, outcome: Outcome) -> None:
    reasons = outcome.reasons.most_common()
    for reason, count in reasons[:SHOWN_REASONS]:
        say(console, f"{count} failed by {reason}")
    if len(reasons) > SHOWN_REASONS:
        rest = sum(count for _, count in reasons[SHOWN_REASONS:])
        say(
            console,
            f"{rest} failed for {len(reasons) - SHOWN_REASONS} other reasons; {outcome.output} has"
            " the reason of each",
        )
    if outcome.failed_earlier and not meter.failed:
        say(
            console,
            f"{outcome.failed_earlier} results from before are failures; --retry-failed sends them"
            " again",
        )
    if outcome.stale:
        say(console, _stale(outcome.stale))


def _stale(count: int) -> str:
    if count == 1:
        return "1 result is the failure of a line that is no longer in the file"

    return f"{count:,} results are failures of lines that are no longer in the file"


def show_nothing_to_do(settings: RunSettings, survey: Survey, done: Done) -> int:
    """Say why nothing is sent; return the exit status."""
    failed = survey.failed
    stale = len(done.failed) - failed
    if not survey.total:
        sentence = f"{settings.file} holds no requests; nothing was sent."
    elif settings.retry_failed:
        sentence = (
            f"No request of {settings.file} has failed in {settings.output}; nothing was sent."
        )
    else:
        sentence = (
            f"Every request of {settings.file} has its result in {settings.output}; nothing was"
            " sent."
        )
        if failed:
            sentence += f" Failures among them: {failed:,}; --retry-failed sends them again."
        if stale:
            sentence += f" Besides, {_stale(stale)}."
    _show_somewhere(lambda console: say(console, sentence))
    write_figures(settings.json_path, asdict(Figures(earlier=survey.total)))
    return 1 if failed and not settings.retry_failed else 0


def _figures(meter: Meter, earlier: int) -> Figures:
    return Figures(
        answered=meter.done - meter.failed,
        failed=meter.failed,
        earlier=earlier,
        rejected=meter.refused,
        seconds=round(meter.seconds, 3),
        prompt_tokens=meter.prompt_tokens,
        output_tokens=meter.output_tokens,
        utilization=_shares(meter, whole=False),
        utilization_of_the_whole_time=_shares(meter, whole=True),
    )


def _shares(meter: Meter, *, whole: bool) -> dict[str, float]:
    shares = meter.share(whole=whole)
    return {label_of(*key): round(share, 4) for key, share in shares.items()}
