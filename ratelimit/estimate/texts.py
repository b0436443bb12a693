"""What the endpoints without messages cost: embeddings, legacy completions,
moderations.

Owns the reading of one or many texts or lists of token numbers. Must never know
messages or tools. Source: 317 recorded embedding calls and 119 completions.
"""

from __future__ import annotations

from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import items, obj, text


def count_texts(given: object, tally: Totals) -> None:
    """Add a text, a list of token numbers, or a list of either, to `tally`; each text
    is at least one token.
    """
    if isinstance(given, str) or _numbers(given):
        _prompt(given, tally)
        return
    prompts = items(given)
    tally.prompts = max(len(prompts), 1)
    for prompt in prompts:
        _prompt(prompt, tally)


def _numbers(given: object) -> bool:
    sequence = items(given)
    return bool(sequence) and isinstance(sequence[0], int)


def _prompt(given: object, tally: Totals) -> None:
    if _numbers(given):
        tally.token_ids += len(items(given))
        tally.tokens += len(items(given))
        return
    said = text(given) or text(obj(given).get("text"))  # moderations take parts
    before = tally.tokens
    tally.content(said)
    tally.tokens += tally.tokens == before
