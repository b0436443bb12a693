"""Which encoding a model's name stands for.

Owns the plain name of a model, and the reading of names that tiktoken's own table does
not list. Must never load an encoding.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from tiktoken.model import encoding_name_for_model

from ratelimit.families import LONGEST_NAME

DEFAULT_ENCODING: Final = "o200k_base"

_NEWER_GPT4: Final = re.compile(r"gpt[-_ ]?4(?:o|[-_ ]o(?:mni)?(?![a-z])|[-_. ]?[15](?!\d))")
"""gpt-4o, 4.1 and 4.5, however they are spelled.

tiktoken's table takes "gpt-4-1-mini" and "ft:gpt-4.1" for a gpt-4.
"""

_CONTAINED: Final = (
    (re.compile(r"(?:text|code)[-_]?davinci|cushman|codex[-_]?00"), "p50k_base"),
    (re.compile(r"gpt[-_ ]?(?:3|4)"), "cl100k_base"),
    (re.compile(r"embedding|ada[-_]?002|(?:davinci|babbage)[-_]?002"), "cl100k_base"),
    # grown from it: 0.0 and 6 % more tokens on 2,454 recorded texts
    (re.compile(r"llama[-_ ]?3|qwen"), "cl100k_base"),
)
"""Parts of a name that tiktoken's table does not list, the most telling first."""


_TELLING: Final = re.compile(
    r"gpt|(?<![a-z0-9])o\d|text-|code-|davinci|babbage|codex|ada-002"
    r"|(?<![a-z])(?:grok|llama|qwen)"
)
"""What the name of a model that is known here holds."""


def plain_name(model: str) -> str:
    """Return a model's name in lower case, without marks that are no part of it.

    Providers stand before it ("openai/gpt-4o", "openai:gpt-4o"), marks of a fine-tune
    on either side ("ft:gpt-4o:org::id", "davinci:ft-org"), those of a route behind it
    ("gpt-4o:free").
    """
    head, _, rest = model[:LONGEST_NAME].lower().partition(":")
    head = head.rsplit("/", 1)[-1]
    while rest and (head == "ft" or (_TELLING.search(rest) and not _TELLING.search(head))):
        head, _, rest = rest.partition(":")
        head = head.rsplit("/", 1)[-1]

    return head


def encoding_for(model: str) -> str:
    """Name the encoding that `model` uses.

    tiktoken's own table has it, dated names included, for its plain name. Else by what
    the name contains, for Azure deployments ("my-gpt4o"). An unknown name, and a model
    of another maker, gets the default. Never raises.
    """
    return _encoding_for(plain_name(model))


@lru_cache(maxsize=1024)
def _encoding_for(name: str) -> str:
    if _NEWER_GPT4.search(name):
        return "o200k_base"

    try:
        return encoding_name_for_model(name)
    except KeyError:
        pass

    for pattern, encoding in _CONTAINED:
        if pattern.search(name):
            return encoding

    return DEFAULT_ENCODING
