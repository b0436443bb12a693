"""The advice in words: the code to paste, sentences, rows of tables, and a document.

Owns how figures are put into words, the same for terminal and page. Must never contain
simulating, files or the look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.tuning.advice import UNSEEN, Advice
from benchmarks.tuning.plans import NAMES
from ratelimit.commands.show import duration

KNOBS: Final = {
    "accounting": "what a call reserves, and whether the rest comes back",
    "output": "tokens held for an answer",
    "arrival_slack": "seconds until a request reaches the server, at most",
    "burst_share": "share of each limit that may go at once",
    "concurrency": "calls in flight, at most",
    "patience": "seconds by which urgent calls overtake batch calls",
}
_BINDING: Final = {
    "answers": "No limit holds you back: the longest answer takes as long as everything.",
    "arrivals": "No limit holds you back: the calls come in more slowly than they could go out.",
    "calls in flight": "The server's bound on calls in flight holds you back.",
}


def code(advice: Advice) -> str:
    """The settings, to paste."""
    given = [f"{name}={_literal(amount)}" for name, amount in advice.plan.world.limits.items()]
    given += [f"{name}={_literal(value)}" for name, value in advice.settings.arguments().items()]
    lines = [f"limiter = RateLimiter({', '.join(given)})", "client = limiter.wrap(AsyncOpenAI())"]
    if len(lines[0]) > 90:
        lines[0] = "limiter = RateLimiter(\n" + "".join(f"    {each},\n" for each in given) + ")"
    if advice.plan.traffic.two_classes:
        lines[1:] = [
            'batch = limiter.wrap(AsyncOpenAI(), priority="batch")',
            'interactive = limiter.wrap(AsyncOpenAI(), priority="interactive")',
        ]
    return "\n".join(lines)


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{name!r}: {_literal(each)}" for name, each in value.items()).replace(
                "'", '"'
            )
            + "}"
        )
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float):
        if abs(value - 1 / 60) < 1e-9:
            return "1 / 60"
        return f"{int(value):_}" if value == int(value) else f"{value:g}"
    return f"{value:_}"


def said(value: object) -> str:
    """A knob's value for people."""
    return "not set" if value is None else _literal(value)


def takes(seconds: float) -> str:
    """Seconds for people, with a figure more where they are few."""
    return f"{seconds:.1f} s" if seconds < 100 else duration(seconds)


def sentences(advice: Advice) -> list[str]:
    """What was found, in plain words, the most important first."""
    return [
        _makespan(advice),
        *_refused(advice),
        _bound(advice),
        _waits(advice),
        *_default(advice),
        *_tiers(advice),
        *_smaller(advice),
        *_in_flight(advice),
    ]


def _makespan(advice: Advice) -> str:
    spread = 2 * advice.unseen.spread
    simulated = f"{len(UNSEEN)} simulated runs on seeds that the search has not seen"
    tail = (
        ""
        if advice.beyond < 1
        else f", of which {takes(advice.beyond)} beyond the simulated part are arithmetic"
    )
    return (
        f"Expect {len(advice.plan.traffic):,} calls to take {takes(advice.makespan)}, give or"
        f" take {takes(spread)} ({simulated}{tail})."
    )


def _refused(advice: Advice) -> list[str]:
    unseen = advice.unseen
    if not (unseen.rejected or unseen.failed):
        return ["None of them got a 429, and none failed."]
    text = (
        f"WARNING: {unseen.rejected} 429s and {unseen.failed} failed calls in these {len(UNSEEN)}"
        " runs: no setting of the limiter fits"
    )
    return [text + " this server and this traffic; give limits some per cent below the real ones."]


def _bound(advice: Advice) -> str:
    ratio = advice.makespan / max(advice.bound, 1e-9)
    why = _BINDING.get(advice.binding)
    if why is None:
        used = advice.utilisation.get(advice.binding, 0.0)
        others = [
            f"{NAMES[name]} {share:.0%}"
            for name, share in advice.utilisation.items()
            if name != advice.binding
        ]
        also = f" (the others: {', '.join(others)})" if others else ""
        why = f"{NAMES[advice.binding]} holds you back: {used:.0%} of it is used{also}."
    return (
        f"{why} No client can be done before {takes(advice.bound)}; this is {ratio:.3f} times that."
    )


def _waits(advice: Advice) -> str:
    unseen = advice.unseen
    text = (
        f"A call waits {takes(unseen.wait(0.5))} (median), {takes(unseen.wait(0.95))} (95 %),"
        f" {takes(unseen.wait(1.0))} (longest) to be let in"
    )
    if advice.plan.traffic.two_classes:
        text += (
            f"; an interactive one {takes(unseen.wait(0.5, urgent=True))} (median),"
            f" {takes(unseen.wait(0.95, urgent=True))} (95 %)"
        )
    return text + "."


def _default(advice: Advice) -> list[str]:
    if not advice.settings.arguments():
        return ["These are the defaults: nothing that was tried beats them."]
    default = advice.default
    took = takes(default.makespan + advice.beyond)
    return [
        (
            f"The defaults take {took}, with {default.rejected} 429s and {default.failed} failed"
            " calls in these runs."
        )
    ]


def _tiers(advice: Advice) -> list[str]:
    found = []
    for each in advice.tiers:
        share = 1 - each.makespan / advice.makespan
        gain = f"saves {share:.0%}" if share > 0.02 else "changes nothing"
        found.append(
            f"{each.name[0].upper()}{each.name[1:]} ({limits(each.limits)}):"
            f" {takes(each.makespan)}, {gain}."
        )
    return found


def _smaller(advice: Advice) -> list[str]:
    if not advice.smaller:
        return [
            (
                "A smaller max_tokens would cut answers and give nothing else: it is as small as"
                " they are long."
            )
        ]
    found = []
    for each in advice.smaller:
        share = 1 - each.makespan / advice.makespan
        gain = f"saves {share:.0%}" if share > 0.005 else "would take as long"
        cut = "cuts no answer" if not each.cut else f"cuts {each.cut:.1%} of the answers"
        found.append(f"max_tokens={each.most:,} {cut} and {gain} ({takes(each.makespan)}).")
    return found


def _in_flight(advice: Advice) -> list[str]:
    most = max(outcome.in_flight for outcome in advice.unseen.outcomes)
    return [f"On average {advice.needed:.1f} calls are in flight, {most:,} at most."]


def limits(named: Mapping[str, float]) -> str:
    """Limits for people: "500 RPM, 30,000 TPM"."""
    return ", ".join(f"{amount:,.12g} {NAMES[name]}" for name, amount in named.items())


def sensitivity(advice: Advice) -> list[tuple[str, str, str]]:
    """Make a row for each option: its recommended value, and what others cost."""
    rows = []
    for knob, points in advice.sensitivity.items():
        chosen = getattr(advice.settings, knob)
        costs_of = []
        for point in points:
            if point.value == chosen:
                continue
            refused = f", {point.rejected} 429s" if point.rejected else ""
            failed = f", {point.failed} failed" if point.failed else ""
            own = next(each.makespan for each in points if each.value == chosen)
            costs = (
                f"interactive calls wait {takes(point.urgent)}"
                if knob == "patience"
                else f"{point.makespan / own - 1:+.1%}"
            )
            costs_of.append(f"{said(point.value)}: {costs}{refused}{failed}")
        rows.append((knob, said(chosen), "; ".join(costs_of)))
    return rows


def servers(advice: Advice) -> Sequence[tuple[str, str, str, str]]:
    """A row for each other kind of server: what these settings come to on it."""
    kinds = {
        "P": "charges the input, settles to the usage (OpenAI today)",
        "I": "charges the input for good (OpenAI's chat, if it does not settle)",
        "A": "charges input and max_tokens for good (OpenAI until 2025, Azure)",
        "C": "charges input and max_tokens, gives back the rest (Cerebras)",
    }
    return [
        (
            each.name.removeprefix("server "),
            kinds[each.name.removeprefix("server ")],
            takes(each.makespan),
            f"{each.rejected}",
        )
        for each in advice.servers
    ]


def document(advice: Advice) -> dict[str, Any]:
    """Everything for programs; seconds and shares, rounded."""
    unseen = advice.unseen
    return {
        "recommended": {
            "arguments": {**advice.plan.world.limits, **advice.settings.arguments()},
            "code": code(advice),
        },
        "makespan": round(advice.makespan, 3),
        "makespan_spread": round(unseen.spread, 3),
        "makespans": [round(outcome.makespan + advice.beyond, 3) for outcome in unseen.outcomes],
        "makespan_default": round(advice.default.makespan + advice.beyond, 3),
        "lower_bound": round(advice.bound, 3),
        "lower_bound_arithmetic": {
            name: round(seconds, 3) for name, seconds in advice.arithmetic.items()
        },
        "lower_bounds": {name: round(seconds, 3) for name, seconds in advice.bounds.items()},
        "ratio": round(advice.makespan / max(advice.bound, 1e-9), 4),
        "binding_limit": advice.binding,
        "validated_rejected": unseen.rejected,
        "validated_failed": unseen.failed,
        "validated_seeds": len(unseen.outcomes),
        "default_rejected": advice.default.rejected,
        "utilisation": {name: round(share, 4) for name, share in advice.utilisation.items()},
        "waits": {
            name: round(unseen.wait(share), 3)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("longest", 1.0))
        },
        "interactive_waits": {
            name: round(unseen.wait(share, urgent=True), 3)
            for name, share in (("p50", 0.5), ("p95", 0.95))
        }
        if advice.plan.traffic.two_classes
        else None,
        "in_flight": {
            "mean": round(advice.needed, 2),
            "most": max(outcome.in_flight for outcome in unseen.outcomes),
        },
        "sensitivity": {
            knob: [
                {
                    "value": point.value,
                    "makespan": round(point.makespan, 3),
                    "rejected": point.rejected,
                    "failed": point.failed,
                }
                for point in points
            ]
            for knob, points in advice.sensitivity.items()
        },
        "tiers": [
            {
                "name": each.name,
                "limits": dict(each.limits),
                "makespan": round(each.makespan, 3),
                "lower_bound": round(each.bound, 3),
            }
            for each in advice.tiers
        ],
        "smaller_max_tokens": [
            {
                "max_tokens": each.most,
                "cut": round(each.cut, 4),
                "makespan": round(each.makespan, 3),
            }
            for each in advice.smaller
        ],
        "other_servers": [
            {"variant": row[0], "makespan": row[2], "rejected": int(row[3])}
            for row in servers(advice)
        ],
        "limits": dict(advice.plan.world.limits),
        "variant": advice.plan.world.variant,
        "calls": len(advice.plan.traffic),
        "runs": advice.runs,
        "in_words": sentences(advice),
    }
