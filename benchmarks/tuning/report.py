"""The report: one page that holds everything it shows and loads nothing.

Owns the order of the page, and the look. Must never contain scripts, addresses of other
files or figures of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from benchmarks.tuning import plots
from benchmarks.tuning.advice import WHOLE, Advice
from benchmarks.tuning.plans import NAMES
from benchmarks.tuning.words import KNOBS, code, limits, sensitivity, sentences, servers, takes

LOOK: Final = """
:root { color-scheme: light; --ink: #1d2026; --soft: #5b616b; --line: #d8dbe0;
  --blue: #2563a8; --warm: #c2571a; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.5rem 4rem; color: var(--ink);
  background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; } h3 + p { margin: .1rem 0 .4rem; }
p, li { max-width: 46rem; } .soft { color: var(--soft); }
pre { background: #f4f5f7; border-left: 3px solid var(--blue); padding: .8rem 1rem;
  overflow-x: auto; font-size: .95rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr));
  gap: 1px; background: var(--line);
  border: 1px solid var(--line); margin: 1.4rem 0; }
.figures div { background: #fff; padding: .8rem 1rem; } .figures b { display: block;
  font-size: 1.35rem; font-weight: 600; }
.figures span { color: var(--soft); font-size: .9rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(25rem, 1fr));
  gap: 1.6rem 2rem; }
svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-size: .95rem; }
td, th { text-align: left; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } td.n, th.n { text-align: right; }
.bad { color: var(--warm); font-weight: 600; }
@media (max-width: 30rem) { .pair { grid-template-columns: 1fr; } }
"""

_NOTHING_ELSE: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The browser refuses the page every request, and reports one on its console."""
_OF_LEVELS: Final = (
    "One run, after each admission: while the limiter counts on no more than the server has,"
    " nothing is refused."
)
_OF_SAMPLE: Final = (
    f" Simulated is a sample of {WHOLE:,} calls, against limits that were lowered in proportion."
)
_OF_BOUND: Final = (
    "What each limit makes it take at least, with any client: what exceeds a full bucket, at the"
    " rate at which it refills, and the last call's own time."
)
_OF_KNOBS: Final = (
    "The rest stay as recommended (blue). Times are of the workload of the search, a sample of the"
    " calls against limits that were lowered with it, two runs each; 429s in orange."
)
_OF_PAGE: Final = (
    "Made by benchmarks/tune.py with the limiter itself on a virtual clock. Nothing on this page is"
    " loaded from anywhere."
)


def page(advice: Advice) -> str:
    """The whole page."""
    traffic, world = advice.plan.traffic, advice.plan.world
    found = sentences(advice)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_ELSE}">',
            '<link rel="icon" href="data:,">',  # without it a browser asks for favicon.ico
            f"<title>{len(traffic):,} calls: settings for the rate limiter</title>",
            f"<style>{LOOK}</style></head><body>",
            f"<h1>{len(traffic):,} calls in {escape(takes(advice.makespan))}</h1>",
            _soft(
                f"against {limits(world.limits)}; server variant {world.variant};"
                f" {advice.runs} simulated runs"
            ),
            f"<pre>{escape(code(advice))}</pre>",
            _figures(advice),
            "<ul>" + "".join(f"<li>{_marked(each)}</li>" for each in found) + "</ul>",
            "<h2>The buckets over time</h2>",
            _soft(_OF_LEVELS + (_OF_SAMPLE if len(traffic) > WHOLE else "")),
            *_levels(advice),
            '<div class="pair"><section><h2>How long calls wait</h2>'
            + plots.waits(advice)
            + "</section>",
            "<section><h2>Other limits</h2>" + plots.tiers(advice) + "</section></div>",
            "<h2>Each knob alone</h2>",
            _soft(_OF_KNOBS),
            f'<div class="pair">{"".join(_knobs(advice))}</div>',
            "<h2>The lower bound</h2>",
            _soft(_OF_BOUND),
            _table(
                ("limit", "used", "seconds of refill", "lower bound"),
                [
                    (
                        NAMES[name],
                        f"{advice.utilisation[name]:.0%}",
                        takes(advice.arithmetic[name]),
                        takes(advice.bounds[name]),
                    )
                    for name in world.limits
                    if name in advice.arithmetic and name in advice.bounds
                ],
                texts=1,
            ),
            "<h2>If the server counts otherwise</h2>",
            _soft("The same settings and calls on other kinds of server, two runs each."),
            _table(("variant", "what it does", "takes", "429s"), servers(advice), texts=2),
            _soft(_OF_PAGE),
            "</body></html>",
        ]
    )


def _figures(advice: Advice) -> str:
    unseen = advice.unseen
    binds = NAMES.get(advice.binding, advice.binding)
    shown = [
        (takes(advice.makespan), f"expected, ± {takes(2 * unseen.spread)}"),
        (takes(advice.bound), "lower bound for any client"),
        (binds, "holds you back"),
        (f"{unseen.rejected}", f"429s in {len(unseen.outcomes)} runs on unseen seeds"),
        (takes(unseen.wait(0.5)), "median wait"),
    ]
    return (
        '<div class="figures">'
        + "".join(
            f"<div><b>{escape(figure)}</b><span>{escape(what)}</span></div>"
            for figure, what in shown
        )
        + "</div>"
    )


def _levels(advice: Advice) -> Iterable[str]:
    """A plot for each limit, the one that binds first."""
    shown = {name for _, found in advice.trace.trace for name in found}
    for name in sorted(shown, key=lambda name: (name != advice.binding, name)):
        yield f"<h3>{NAMES[name]}</h3>{plots.levels(advice, name)}"


def _soft(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>'


def _marked(sentence: str) -> str:
    return (
        f'<span class="bad">{escape(sentence)}</span>'
        if sentence.startswith("WARNING")
        else escape(sentence)
    )


def _knobs(advice: Advice) -> Iterable[str]:
    for name, chosen, _ in sensitivity(advice):
        points = advice.sensitivity[name]
        if len(points) > 1:
            drawn = plots.knob(points, getattr(advice.settings, name), urgent=name == "patience")
            heading = f"<h3>{name} = {escape(chosen)}</h3>{_soft(KNOBS[name])}"
            yield f"<section>{heading}{drawn}</section>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    def cells(values: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{'' if number < texts else ' class=n'}>{escape(value)}</{tag}>"
            for number, value in enumerate(values)
        )

    return (
        f"<table><tr>{cells(columns, 'th')}</tr>"
        + "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
        + "</table>"
    )
