"""What kind of model a name stands for: the few traits the formulas branch on.

Owns the reading of model names (dated, fine-tuned, prefixed, deployed under a name of
one's own). Must never hold a formula: a trait says what the model is, the formula files
say what follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ratelimit.estimate.tokenizer import encoding_for

_REASONING = re.compile(r"(?:^|[^a-z0-9])(?:o[134](?:$|-)|gpt-?5|computer-use)")
_GPT5 = re.compile(r"(?:^|[^a-z0-9])gpt-?5")
_EARLY = {
    "gpt-4",
    "gpt-4-0613",
    "gpt-4-0314",
    "gpt-4-32k",
    "gpt-4-32k-0613",
    "gpt-3.5-turbo-0613",
    "gpt-3.5-turbo-16k-0613",
}
_GPT54 = re.compile(r"gpt-?5[.][4-9]")
_OPENAI = re.compile(
    r"(?:^|[^a-z0-9])(?:gpt|chatgpt|o[134](?:$|-)|text-(?:embedding|davinci|moderation)|davinci|babbage|computer-use|omni-moderation)"
)


@dataclass(frozen=True, slots=True)
class Family:
    """The traits of one model name."""

    name: str
    """Lower case, without a provider's prefix ("openai/gpt-4o" is "gpt-4o") or what a
    fine-tune adds ("ft:gpt-4o:org::id" is "gpt-4o").
    """
    encoding: str
    gpt5: bool
    gpt54: bool  # gpt-5.4 and later, which tell a call in more tokens
    reasoning: bool  # thinks before it answers: its output holds hidden tokens
    early: bool  # gpt-4-0613 and its like, which are shown tools in an older form
    openai: bool  # a name OpenAI uses: the formulas were fitted on these


@lru_cache(maxsize=1024)
def family(model: str) -> Family:
    """Return the traits behind `model`; unknown and empty names get the traits of
    gpt-4o.
    """
    name = model.lower()
    if name.startswith("ft:"):
        name = name[3:].split(":", 1)[0]
    name = name.rsplit("/", 1)[-1]
    return Family(
        name=name,
        encoding=encoding_for(model),
        gpt5=bool(_GPT5.search(name)),
        gpt54=bool(_GPT54.search(name)),
        reasoning=bool(_REASONING.search(name)) and "gpt-5-chat" not in name,
        early=name in _EARLY,
        openai=bool(_OPENAI.search(name)),
    )
