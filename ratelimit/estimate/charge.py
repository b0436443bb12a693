"""What the server's token limiter takes at admission, before it has counted a token.

Owns the table of charge rules. The charge is not the bill: the server mostly counts
bytes, ignores tools and names, and takes a flat price for a picture; the bill (usage)
comes later. Must never read a request: a rule sees `Totals`, the sizes taken from it.

Source of every figure: recorded `x-ratelimit-remaining-tokens` headers of
api.openai.com. OpenAI changed the rules silently at least once, on 2025-03-20, when
Chat and the legacy completions ceased to charge `max_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from ratelimit.estimate.endpoints import Endpoint
from ratelimit.estimate.models import ModelTraits
from ratelimit.estimate.totals import Totals

Rule: TypeAlias = Callable[[Totals], int]

PICTURE: Final = 765
"""Tokens for any image or file part, whatever its size or detail."""

_HIDDEN: Final[tuple[tuple[str, int, int], ...]] = (
    ("gpt-5.4", 163, 455),
    ("gpt-5.5", 163, 455),
    ("gpt-5.6", 143, 435),
    ("gpt-5", 217, 496),
    ("o4-mini", 207, 264),
    ("o3", 61, 61),
    ("gpt-4o", 19, 217),
    ("gpt-4.1", 19, 217),
    ("gpt-4.5", 19, 217),
    ("gpt-3.5", 5, 5),
    ("gpt-4", 5, 5),
    ("", 19, 217),
)
"""How a model's name begins; hidden tokens without functions, and with them.

The first match holds. Source: the headers of 238 recorded Responses calls, which
show the charge (used = input + hidden), and of 36 that show the settled level (used =
output - hidden). gpt-5 with functions: 490 on 5 of 6 calls of 2025-12, 496 on 5 of 5 of
2026-08; gpt-5.4 and gpt-5.5: 449 until 2026-05, 455 since 2026-07. gpt-5.6: 143 on 7
of 7 without functions; with functions none is recorded, and the difference is taken
from gpt-5.4.
"""


def hidden_tokens(traits: ModelTraits, *, functions: bool) -> int:
    """Return the tokens that the server writes before a Responses prompt.

    Its limiter takes them, the bill leaves them out.
    """
    _, plain, with_functions = next(row for row in _HIDDEN if traits.table_name.startswith(row[0]))
    return with_functions if functions else plain


def charge(endpoint: Endpoint, totals: Totals) -> int:
    """Return what the server takes at admission for a request with these totals."""
    rule = _RULES.get(endpoint)
    return 0 if rule is None else rule(totals)


def _chat(totals: Totals) -> int:
    parts = totals.images + totals.files
    return -(-totals.text_bytes // 4) + totals.messages + totals.choices + PICTURE * parts


def _completions(totals: Totals) -> int:
    return totals.text_bytes // 4 + totals.token_ids + totals.choices * totals.prompts


def _embeddings(totals: Totals) -> int:
    return totals.text_bytes // 4 + totals.token_ids


def _responses(totals: Totals) -> int:
    return PICTURE * totals.images if totals.images else totals.tokens + totals.hidden


_RULES: Final[Mapping[Endpoint, Rule]] = {
    "chat.completions": _chat,  # within {0, +1} on 99.2 % of 4,564 calls
    "completions": _completions,  # 68 of 68
    "embeddings": _embeddings,  # 396 of 396
    "responses": _responses,  # 96-99 % without tools, 79-89 % with, 42 of 46 with images
    "moderations": _embeddings,  # no header recorded: taken to be as embeddings
}
"""The rule of today for each endpoint; images and audio have limits of their own."""
