"""The IETF's RateLimit and RateLimit-Policy fields, of every draft that is in use.

Owns their syntax. Must never know other headers, do I/O or read a clock. Never raises:
an item that cannot be read is left out.

    drafts from 8   RateLimit-Policy: "permin";q=50;w=60;qu="requests";pk=:a2V5:
                    RateLimit: "permin";r=30;t=10;pk=:a2V5:
    draft 7         RateLimit-Policy: 100;w=60
                    RateLimit: limit=100, remaining=50, reset=5
    drafts to 6     RateLimit-Limit: 100, 100;w=60
                    RateLimit-Remaining: 50
                    RateLimit-Reset: 5

Senders: Cloudflare, Hugging Face, Envoy and other gateways; they count requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from ratelimit.feedback.untrusted import amount, duration

FIELDS: Final = (
    "ratelimit-policy",
    "ratelimit",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
)
"""The names of the fields, in the order in which `read_windows` takes their values."""

_ITEM: Final = re.compile(
    r"""(?:"(?P<name>[^"]{0,64})"|(?P<bare>[\w.=*/-]{1,64}))
    (?P<parameters>(?:\s*;\s*[a-z]{1,16}=(?:"[^"]{0,64}"|[^\s;,"]{0,64}))*)""",
    re.VERBOSE | re.ASCII,
)
_PARAMETER: Final = re.compile(r'([a-z]{1,16})=("[^"]{0,64}"|[^\s;,"]{0,64})')
_LONGEST_FIELD: Final = 1_000
_MOST_ITEMS: Final = 16


UNITS: Final = {"requests": "requests", "tokens": "tokens"}
"""What a policy counts, by its unit `qu`; the others (content-bytes,
concurrent-requests) are no amounts per period of what is limited here.
"""


class Window(NamedTuple):
    """One policy: a limit per period, what is left of it, and the time until its end.

    Amounts and seconds; None where the fields do not say.
    """

    limit: float | None
    remaining: float | None
    reset: float | None
    period: float | None
    counted: str = "requests"
    """One of the values of `UNITS`."""


def read_windows(policy: str, state: str, limit: str, remaining: str, reset: str) -> list[Window]:
    """Read the windows that the fields describe.

    :param policy: the value of RateLimit-Policy, "" when absent; likewise `state` of
        RateLimit, and `limit`, `remaining`, `reset` of the older RateLimit-* fields.
    """
    known: dict[str, dict[str, str]] = {}
    plain: dict[str, str] = {"q": limit.partition(",")[0], "r": remaining, "t": reset}
    ignored: set[str] = set()  # policies of units that are not followed
    for name, parameters in [*_items(limit), *_items(policy)]:
        if parameters.get("qu", "requests").strip('"') not in UNITS:
            ignored.add(name)
        elif "w" in parameters or "q" in parameters:
            known[name] = {"q": name, **parameters}

    for name, parameters in _items(state):
        key, _, value = name.partition("=")
        if value:  # draft 7: limit=100
            plain[{"limit": "q", "remaining": "r", "reset": "t"}.get(key, key)] = value
        elif "r" in parameters and name not in ignored and (name in known or not known):
            known[name] = known.get(name, {}) | parameters

    if any(plain.get(key) for key in ("q", "r", "t")):
        matching = [each for each in known.values() if each.get("q") == plain["q"].strip()]
        if len(matching) == 1 and "r" not in matching[0]:
            matching[0] |= {key: value for key, value in plain.items() if value}
        elif not known:
            known[""] = plain

    windows = [_window(parameters) for parameters in known.values()]
    return [
        window for window in windows if window.limit is not None or window.remaining is not None
    ]


def _items(field: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Split a field into its items: the name or number, and the parameters."""
    for position, match in enumerate(_ITEM.finditer(field[:_LONGEST_FIELD])):
        if position == _MOST_ITEMS:
            return
        name = match["bare"] if match["name"] is None else match["name"]
        yield name, dict(_PARAMETER.findall(match["parameters"]))


def _window(parameters: dict[str, str]) -> Window:
    period = duration(parameters.get("w"))
    return Window(
        amount(parameters.get("q", "").strip()),
        amount(parameters.get("r", "").strip()),
        duration(parameters.get("t", "").strip()),
        period or None,
        UNITS[parameters.get("qu", "requests").strip('"')],
    )
