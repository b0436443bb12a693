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

from ratelimit.estimate.encodings import encoding_for, plain_name

NEWEST: Final = (5, 6)
"""The newest version of GPT with a recorded call; later ones are treated like it.

gpt-6-astra, -sol, -luna and gpt-6.1-sol exist (2026-11), but no call of theirs is
recorded.
"""

NEWEST_O: Final = 4
"""The same of the o-series, of which o4-mini is the newest."""

_VERSION: Final = re.compile(
    r"gpt[-_ ]?(\d{1,3})(?:[-_. ](\d{1,2})(?!\d|k))?(?!\d|(?:\.\d+)?[bm](?![a-z]))"
)
"""A version of GPT: "gpt-5", "gpt-5.4", and in Azure's names "gpt-35", "gpt-4-1".

"gpt-6.7b" names a size, of another maker's model.
"""

_VARIANT: Final = re.compile(r"(?:[-_ ]?(o(?:mni)?))?(?:[-_ ]?(mini|nano|pro))?(?![a-z])")
"""What may follow a version, however it is set apart: "gpt4omini", "gpt-4-o-mini"."""

_O_SERIES: Final = re.compile(r"(?<![a-z0-9])o(\d{1,3})(?=$|[-_.:@]|mini|pro)")
_REASONS: Final = re.compile(r"(?<![a-z0-9])(?:computer-use|codex|gpt[-_ ]?oss)")
"""Models that reason and are of no numbered family."""

_OPENAI: Final = re.compile(
    r"(?<![a-z0-9])(?:gpt(?![-_ ]?(?:oss|neo|j(?![a-z])|\d+(?:\.\d+)?[bm](?![a-z])))|chatgpt"
    r"|codex|text-(?:embedding|davinci|moderation)|davinci|babbage|computer-use"
    r"|omni-moderation)"
)
"""Models that OpenAI serves: neither gpt-oss nor "gpt-j-6b"."""

_GROK: Final = re.compile(r"(?<![a-z0-9])grok(?![a-z])")

_EARLY: Final = re.compile(
    r"gpt-4(?:-32k)?(?:$|-(?:0613|0314)(?!\d))|gpt-3\.5-turbo(?:-16k)?-0613(?!\d)"
)
"""Models of 2023, whatever follows their date: "gpt-4-0613-eu".

Without a date only the bare name is one: "gpt-4-eu" may as well be a gpt-4-turbo, which
is shown more.
"""


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """The traits of one model name."""

    name: str
    """Lower case, without a provider's prefix or the marks of a fine-tune or route.

    "openai/gpt-4o" and "ft:gpt-4o:org::id" are "gpt-4o".
    """

    table_name: str
    """The name by which tables of constants are looked up.

    It is spelled as OpenAI does ("gpt-4.1" for "my-gpt41"), and a version later than
    `NEWEST` or `NEWEST_O` stands as that one.
    """

    encoding: str

    gpt5: bool
    """gpt-5 and later."""

    gpt54: bool
    """gpt-5.4 and later, which are shown a call in more tokens."""

    reasoning: bool
    """The model thinks before it answers: its output holds hidden tokens."""

    early: bool
    """gpt-4-0613 and its like, which are shown tools in an older form."""

    grok: bool
    """One of xAI's: shown a text of its own around functions, and thinking first."""

    openai: bool
    """The name is one of OpenAI's: the formulas were fitted on its models."""

    known: bool
    """The same, and the model is no later one than the newest with a recorded call."""


@lru_cache(maxsize=1024)
def traits_of(model: str) -> ModelTraits:
    """Return the traits behind `model`; an unknown name has those of gpt-4o."""
    name = plain_name(model)
    version, table_name = _version_of(name)
    series = _O_SERIES.search(name)
    newer = series is not None and int(series[1]) > NEWEST_O
    openai = series is not None or bool(_OPENAI.search(name))
    if series is not None and version == (0, 0):
        rest = _variant(name[series.end() :])
        table_name = f"o{NEWEST_O}-mini" if newer else f"o{int(series[1])}{rest}"

    reasons = version >= (5, 0) or series is not None or bool(_REASONS.search(name))
    return ModelTraits(
        name=name,
        table_name=table_name,
        encoding=encoding_for(model),
        gpt5=version >= (5, 0),
        gpt54=version >= (5, 4),
        reasoning=reasons and not table_name.startswith("gpt-5-chat"),
        early=bool(_EARLY.match(table_name)),
        grok=bool(_GROK.search(name)),
        openai=openai,
        known=openai and version <= NEWEST and not newer,
    )


def _version_of(name: str) -> tuple[tuple[int, int], str]:
    """Return the version of GPT in a name, (0, 0) without one, and its table name."""
    found = _VERSION.search(name)
    if found is None:
        return (0, 0), name

    major, minor = int(found[1]), int(found[2] or 0)
    if major >= 30:
        # Azure's "gpt-35-turbo" is gpt-3.5-turbo.
        major, minor = divmod(major, 10)

    spelled = min((major, minor), NEWEST)
    shown = f"gpt-{spelled[0]}.{spelled[1]}" if spelled[1] else f"gpt-{spelled[0]}"
    return (major, minor), shown + _variant(name[found.end() :])


def _variant(rest: str) -> str:
    """Spell what follows a version as OpenAI does."""
    found = _VARIANT.match(rest)
    if found is None:
        return rest

    omni, size = "o" if found[1] else "", f"-{found[2]}" if found[2] else ""
    return omni + size + rest[found.end() :]
