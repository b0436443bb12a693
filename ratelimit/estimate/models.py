"""What kind of model a name stands for: the traits that the formulas branch on.

Owns the reading of model names (dated, fine-tuned, prefixed by a provider, deployed
under a name of the user's own). Must never hold a formula: a trait says what the model
is, the formula files say what follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ratelimit.estimate.encodings import encoding_for
from ratelimit.families import LONGEST_NAME

_REASONING: Final = re.compile(r"(?:^|[^a-z0-9])(?:o[134](?:$|-)|gpt-?5|computer-use)")
_GPT5: Final = re.compile(r"(?:^|[^a-z0-9])gpt-?5")
_GPT54: Final = re.compile(r"gpt-?5[.][4-9]")
_OPENAI: Final = re.compile(
    r"(?:^|[^a-z0-9])(?:gpt|chatgpt|o[134](?:$|-)|text-(?:embedding|davinci|moderation)"
    r"|davinci|babbage|computer-use|omni-moderation)"
)
_EARLY: Final = frozenset(
    {
        "gpt-4",
        "gpt-4-0613",
        "gpt-4-0314",
        "gpt-4-32k",
        "gpt-4-32k-0613",
        "gpt-3.5-turbo-0613",
        "gpt-3.5-turbo-16k-0613",
    }
)


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """The traits of one model name."""

    name: str
    """Lower case, without a provider's prefix or the marks of a fine-tune.

    "openai/gpt-4o" and "ft:gpt-4o:org::id" are "gpt-4o".
    """

    encoding: str

    gpt5: bool

    gpt54: bool
    """gpt-5.4 and later, which are shown a call in more tokens."""

    reasoning: bool
    """The model thinks before it answers: its output holds hidden tokens."""

    early: bool
    """gpt-4-0613 and its like, which are shown tools in an older form."""

    openai: bool
    """The name is one of OpenAI's: the formulas were fitted on its models."""


@lru_cache(maxsize=1024)
def traits_of(model: str) -> ModelTraits:
    """Return the traits behind `model`; an unknown name has those of gpt-4o."""
    name = model[:LONGEST_NAME].lower()
    if name.startswith("ft:"):
        name = name[3:].split(":", 1)[0]

    name = name.rsplit("/", 1)[-1]
    return ModelTraits(
        name=name,
        encoding=encoding_for(model),
        gpt5=bool(_GPT5.search(name)),
        gpt54=bool(_GPT54.search(name)),
        reasoning=bool(_REASONING.search(name)) and "gpt-5-chat" not in name,
        early=name in _EARLY,
        openai=bool(_OPENAI.search(name)),
    )
