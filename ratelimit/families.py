"""Model names, and the patterns under which limits are given for them.

Owns which models share their buckets. Must never know amounts: `limits.py` has them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Final

LONGEST_NAME: Final = 200
"""Characters of a model's name that count; the rest is cut off."""

_SNAPSHOT: Final = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4})$")


def pattern_of(model: str, patterns: Iterable[str]) -> str | None:
    """Return the pattern under which ``model`` falls, or None.

    A pattern is a name, a glob ("gpt-4o-mini*") or several joined by "|": all models
    that match one pattern share its buckets. The exact name wins, then the most
    specific glob, then the name without its snapshot date ("gpt-4o-2024-08-06" counts
    against "gpt-4o", as on the server, which keeps its state per model family) or of
    the base model of a fine-tune ("ft:gpt-4o-mini:org::id").
    """
    globs = [(part, pattern) for pattern in patterns for part in pattern.split("|")]
    for name in dict.fromkeys((model, _without_tuning(model), base_model(model))):
        for part, pattern in globs:
            if name in (part, pattern):
                return pattern
        matching = [
            (len(part.replace("*", "")), pattern)
            for part, pattern in globs
            if part != "*" and fnmatch.fnmatchcase(name, part)
        ]
        if matching:
            return max(matching)[1]
    return next((pattern for part, pattern in globs if part == "*"), None)


def base_model(model: str) -> str:
    """Return a model's name without its snapshot date and without its fine-tuning."""
    return _SNAPSHOT.sub("", _without_tuning(model))


def _without_tuning(model: str) -> str:
    return model.split(":")[1] if model.startswith("ft:") else model
