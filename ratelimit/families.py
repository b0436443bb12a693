"""Model names, and the patterns under which limits are given for them.

Owns which models share their buckets. Must never know amounts: `limits.py` has them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator
from typing import Final

LONGEST_NAME: Final = 200
"""Characters of a model's name that count; the rest is cut off."""

_SNAPSHOT: Final = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4})$")


class Patterns:
    """Patterns of model names, made ready for looking names up.

    A pattern is a name, a glob ("gpt-4o-mini*") or several joined by "|": all models
    that match one pattern share its buckets. Looking a name up takes a few steps,
    however many patterns are names, beginnings ("gpt-4o*") or ends ("*-mini").
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names: dict[str, str] = {}
        self._beginnings: dict[str, str] = {}
        self._ends: dict[str, str] = {}
        self._globs: list[tuple[re.Pattern[str], int, str]] = []
        self._rest: str | None = None
        for pattern in patterns:
            self._names.setdefault(pattern, pattern)
            for part in pattern.split("|"):
                if part == "*":
                    self._rest = self._rest or pattern
                elif not _is_glob(part):
                    self._names.setdefault(part, pattern)
                elif part.endswith("*") and not _is_glob(part[:-1]):
                    self._keep(self._beginnings, part[:-1], pattern)
                elif part.startswith("*") and not _is_glob(part[1:]):
                    self._keep(self._ends, part[1:], pattern)
                else:
                    length = len(part.replace("*", ""))
                    self._globs.append((re.compile(fnmatch.translate(part)), length, pattern))
        self._of_beginnings = sorted({len(part) for part in self._beginnings})
        self._of_ends = sorted({len(part) for part in self._ends})

    @staticmethod
    def _keep(parts: dict[str, str], part: str, pattern: str) -> None:
        parts[part] = max(pattern, parts.get(part, pattern))

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
            found = max(self._fitting(name), default=None)
            if found is not None:
                return found[1]
        return self._rest

    def _fitting(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the globs that a name fits: how long each is, and its pattern."""
        for length in self._of_beginnings:
            pattern = self._beginnings.get(name[:length])
            if pattern is not None and length <= len(name):
                yield length, pattern
        for length in self._of_ends:
            pattern = self._ends.get(name[max(len(name) - length, 0) :])
            if pattern is not None and length <= len(name):
                yield length, pattern
        for glob, length, pattern in self._globs:
            if glob.match(name):
                yield length, pattern


def _is_glob(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def pattern_of(model: str, patterns: Iterable[str]) -> str | None:
    """Return the pattern under which ``model`` falls, or None; see `Patterns`."""
    return Patterns(patterns).of(model)


def base_model(model: str) -> str:
    """Return a model's name without its snapshot date and without its fine-tuning."""
    return _SNAPSHOT.sub("", _without_tuning(model))


def _without_tuning(model: str) -> str:
    return model.split(":")[1] if model.startswith("ft:") else model
