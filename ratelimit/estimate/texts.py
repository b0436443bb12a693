"""What the endpoints without messages cost: embeddings, completions, moderations.

Owns the reading of one or many texts or lists of token numbers. Must never know
messages or tools. Source: 317 recorded embedding calls and 119 completions.
"""

from __future__ import annotations

from ratelimit.estimate.content import is_text, text_of_part
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.unknown import add_unknown
from ratelimit.estimate.untrusted import as_mapping, as_sequence, as_str


def count_texts(given: object, field: str, totals: Totals) -> None:
    """Add a text, a list of token numbers, or a list of either, to `totals`.

    :param field: the name of the body's field that holds it.
    """
    if isinstance(given, str):
        _add_prompt(given, totals)
        return

    prompts = totals.items(given, field, required=True)
    if _are_token_ids(prompts):
        _add_prompt(prompts, totals)
        return

    totals.prompts = max(len(prompts), 1)
    for prompt in prompts:
        nested = as_str(prompt) or totals.items(prompt, field)
        _add_prompt(nested or prompt, totals)


def _are_token_ids(given: object) -> bool:
    numbers = as_sequence(given)
    return bool(numbers) and isinstance(numbers[0], int)


def _add_prompt(given: object, totals: Totals) -> None:
    """Add one prompt; each is at least one token."""
    if _are_token_ids(given):
        numbers = len(as_sequence(given))
        totals.token_ids += numbers
        totals.tokens += numbers
        return

    before = totals.tokens
    # Moderations take parts with a text, other vendors take more than texts.
    part = as_mapping(given)
    if is_text(part):
        totals.add_text(as_str(given) or text_of_part(part))
    else:
        add_unknown(part, totals)

    if totals.tokens == before:
        totals.tokens += 1
