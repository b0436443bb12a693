"""The plots of the report, each as one SVG element that needs nothing beside it.

Owns axes, colours, marks. Must never contain figures that the advice does not
hold, HTML around them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.tuning.advice import Advice, Point
from benchmarks.tuning.words import said, takes

BLUE: Final = "#2563a8"
ORANGE: Final = "#c2571a"
GREY: Final = "#8a8f98"
LINE: Final = "#d8dbe0"
STYLE: Final[Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "svg.hashsalt": "tune",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#3b3f46",
    "xtick.color": "#3b3f46",
    "ytick.color": "#3b3f46",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


def levels(advice: Advice, limit: str) -> str:
    """Draw the levels of one limit, the server's and the limiter's, over time."""
    trace = [(moment, *found[limit]) for moment, found in advice.trace.trace if limit in found]
    figure, axes = _axes(9.2, 2.6)
    unit, name = _unit(advice.trace.seconds)
    times = [moment / unit for moment, _, _ in trace]
    axes.plot(
        times, [server for _, _, server in trace], color=BLUE, linewidth=1.1, label="the server has"
    )
    axes.plot(
        times,
        [own for _, own, _ in trace],
        color=ORANGE,
        linewidth=0.9,
        label="the limiter counts on",
    )
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel(f"{name} since the start")
    axes.set_ylabel("requests" if limit.startswith("r") else "tokens")
    axes.yaxis.set_major_formatter(_thousands)
    legend(axes)
    return _svg(figure, f"Level of the {limit} bucket over time, right after each admission")


def waits(advice: Advice) -> str:
    """Draw the share of the calls that was let in, by seconds waited."""
    figure, axes = _axes(4.5, 3.0)
    every = sorted(wait for outcome in advice.unseen.outcomes for wait in outcome.waits)
    urgent = sorted(wait for outcome in advice.unseen.outcomes for wait in outcome.urgent)
    unit, name = _unit(every[-1] if every else 1.0)
    for values, colour, label in (
        (every, BLUE, "all calls"),
        (urgent, ORANGE, "interactive calls"),
    ):
        if values:
            axes.step(
                [value / unit for value in values],
                [(number + 1) / len(values) for number in range(len(values))],
                color=colour,
                label=label,
            )
    axes.set_xlabel(f"wait in {name}")
    axes.set_ylabel("share of the calls")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    if urgent:
        legend(axes)
    return _svg(figure, "Share of the calls that waited at most so long")


def knob(points: Sequence[Point], chosen: object, *, urgent: bool = False) -> str:
    """Draw what each value of an option costs; the recommended one is blue.

    `urgent`: the cost is the wait within which 95 % of the interactive calls stay.
    """
    figure, axes = _axes(4.5, 0.55 + 0.32 * len(points))
    costs = [point.urgent if urgent else point.makespan for point in points]
    unit, name = _unit(max(costs))
    names = [said(point.value) for point in points]
    bars = axes.barh(names, [cost / unit for cost in costs], height=0.62, color=LINE)
    for bar, point, cost in zip(bars, points, costs, strict=True):
        if point.value == chosen:
            bar.set_color(BLUE)
        refused = point.rejected or point.failed
        label = (
            takes(cost)
            + (f", {point.rejected} 429s" if refused else "")
            + (f", {point.failed} failed" if point.failed else "")
        )
        axes.annotate(
            label,
            (bar.get_width(), bar.get_y() + bar.get_height() / 2),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=ORANGE if refused else "#3b3f46",
        )
    axes.set_xlim(0, 1.5 * max(costs) / unit)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlabel(f"{name} that 95 % of the interactive calls wait at most" if urgent else name)
    return _svg(figure, "Cost of each value of this knob, the others as recommended")


def tiers(advice: Advice) -> str:
    """How long it takes under other limits, with the lower bound of each."""
    rows = [
        ("now", advice.makespan, advice.bound),
        *((each.name, each.makespan, each.bound) for each in advice.tiers),
    ]
    figure, axes = _axes(4.5, 0.75 + 0.36 * len(rows))
    unit, name = _unit(max(seconds for _, seconds, _ in rows))
    bars = axes.barh(
        [label for label, _, _ in rows],
        [seconds / unit for _, seconds, _ in rows],
        height=0.6,
        color=[BLUE, *[LINE] * (len(rows) - 1)],
    )
    for number, (bar, (_, seconds, bound)) in enumerate(zip(bars, rows, strict=True)):
        axes.plot(
            [bound / unit] * 2,
            [number - 0.38, number + 0.38],
            color=ORANGE,
            linewidth=1.6,
            label="" if number else "lower bound",
        )
        axes.annotate(
            takes(seconds),
            (bar.get_width(), number),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color="#3b3f46",
        )
    axes.set_xlim(0, 1.4 * max(seconds / unit for _, seconds, _ in rows))
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlabel(name)
    legend(axes)
    return _svg(figure, "Makespan under other limits")


def legend(axes: Axes) -> None:
    """Name the series above the axes, where nothing is drawn that it could cover."""
    axes.legend(
        frameon=False,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0,
        ncols=2,
        fontsize=8.5,
    )


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


def _svg(figure: Figure, title: str) -> str:
    """Return the drawing as an element of a page, without prolog and document type."""
    out = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(
            out,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{title}" ', drawn, count=1)


def _thousands(value: float, _: Any) -> str:
    return f"{value:,.0f}"


def _unit(seconds: float) -> tuple[float, str]:
    """The unit in which so many seconds are a handy figure."""
    return next(
        (
            (size, name)
            for size, name in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"))
            if seconds >= 3 * size
        ),
        (1.0, "seconds"),
    )
