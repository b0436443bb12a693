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


class Patterns:
    """Patterns of model names, made ready for looking names up.

    A pattern is a name, a glob ("gpt-4o-mini*") or several joined by "|": all models
    that match one pattern share its buckets. Looking up a name that is written out
    takes one step, however many patterns there are.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names: dict[str, str] = {}
        self._globs: list[tuple[re.Pattern[str], int, str]] = []
        self._rest: str | None = None
        for pattern in patterns:
            self._names.setdefault(pattern, pattern)
            for part in pattern.split("|"):
                if part == "*":
                    self._rest = self._rest or pattern
                elif any(sign in part for sign in "*?["):
                    length = len(part.replace("*", ""))
                    self._globs.append((re.compile(fnmatch.translate(part)), length, pattern))
                else:
                    self._names.setdefault(part, pattern)

    def of(self, model: str) -> str | None:
        """Return the pattern under which ``model`` falls, or None.

        The exact name wins, then the most specific glob, then the name without its
        snapshot date ("gpt-4o-2024-08-06" counts against "gpt-4o", as on the server,
        which keeps its state per model family) or of the base model of a fine-tune
        ("ft:gpt-4o-mini:org::id").
        """
        for name in dict.fromkeys((model, _without_tuning(model), base_model(model))):
            if name in self._names:
                return self._names[name]
            found = [(length, one) for glob, length, one in self._globs if glob.match(name)]
            if found:
                return max(found)[1]
        return self._rest


def pattern_of(model: str, patterns: Iterable[str]) -> str | None:
    """Return the pattern under which ``model`` falls, or None; see `Patterns`."""
    return Patterns(patterns).of(model)


def base_model(model: str) -> str:
    """Return a model's name without its snapshot date and without its fine-tuning."""
    return _SNAPSHOT.sub("", _without_tuning(model))


def _without_tuning(model: str) -> str:
    return model.split(":")[1] if model.startswith("ft:") else model
