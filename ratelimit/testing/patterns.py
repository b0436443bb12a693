"""Texts that match a regular expression, for the keyword `pattern` of a JSON schema.

Owns the walk over a parsed pattern. Must never return a text that does not match.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from re import _constants as codes  # type: ignore[attr-defined]  # has no public name
from re import _parser  # type: ignore[attr-defined]  # has no public name
from typing import Any, Final

__all__ = ["matching"]

REPEATS: Final = 256
"""How often more than it must a repetition repeats at most, for a longer text."""
LONGEST: Final = 100_000
"""Characters at which the search ends."""
_CHARACTERS: Final = string.ascii_lowercase + string.digits + string.printable
_CATEGORIES: Final = {
    codes.CATEGORY_DIGIT: str.isdigit,
    codes.CATEGORY_NOT_DIGIT: lambda each: not each.isdigit(),
    codes.CATEGORY_SPACE: str.isspace,
    codes.CATEGORY_NOT_SPACE: lambda each: not each.isspace(),
    codes.CATEGORY_WORD: lambda each: each.isalnum() or each == "_",
    codes.CATEGORY_NOT_WORD: lambda each: not (each.isalnum() or each == "_"),
}


def matching(pattern: str, least: int = 0, most: int | None = None) -> str | None:
    """Return a text of `least` to `most` characters in which `pattern` is found.

    None when there is none that can be found, or the pattern is in a dialect that
    Python does not read.
    """
    try:
        parsed, compiled = _parser.parse(pattern), re.compile(pattern)
    except re.error:
        return None

    for more in range(REPEATS):
        text = _text(parsed, more, {})
        if len(text) > (LONGEST if most is None else most):
            return None

        if len(text) < least and not pattern.endswith("$"):
            text = text.ljust(least, "a")

        if len(text) >= least and compiled.search(text):
            return text

    return None


def _text(parsed: Iterable[tuple[Any, Any]], more: int, groups: dict[int, str]) -> str:
    return "".join(_piece(code, argument, more, groups) for code, argument in parsed)


def _piece(code: Any, argument: Any, more: int, groups: dict[int, str]) -> str:
    """Return the text of one element of a parsed pattern.

    An anchor or a look-around has no width.
    """
    if code in _SINGLE:
        return str(_SINGLE[code](argument))

    if code in _REPEATS:
        low, high, inner = argument
        times: int = min(low + more, high)
        return _text(inner, more, groups) * times

    if code is codes.SUBPATTERN:
        number, _, _, inner = argument
        text = _text(inner, more, groups)
        if number is not None:
            groups[number] = text

        return text

    if code is codes.BRANCH:
        return _text(argument[1][0], more, groups)

    if code is codes.ATOMIC_GROUP:
        return _text(argument, more, groups)

    return groups.get(argument, "") if code is codes.GROUPREF else ""


def _inside(character: str, members: Iterable[tuple[Any, Any]]) -> bool:
    """Return whether a character class holds `character`."""
    negated, found = False, False
    for code, argument in members:
        if code is codes.NEGATE:
            negated = True
        elif code is codes.LITERAL:
            found = found or character == chr(argument)
        elif code is codes.RANGE:
            found = found or argument[0] <= ord(character) <= argument[1]
        elif code is codes.CATEGORY:
            belongs: Callable[[str], bool] = _CATEGORIES[argument]
            found = found or belongs(character)

    return found is not negated


def _first(members: Iterable[tuple[Any, Any]]) -> str:
    """Return the first character that a class names, for classes beyond ASCII."""
    for code, argument in members:
        if code is codes.LITERAL:
            return chr(argument)

        if code is codes.RANGE:
            return chr(argument[0])

    return "a"


def _of_class(members: Sequence[tuple[Any, Any]]) -> str:
    return next((each for each in _CHARACTERS if _inside(each, members)), _first(members))


_SINGLE: Final[Mapping[object, Callable[[Any], str]]] = {
    codes.LITERAL: chr,
    codes.NOT_LITERAL: lambda code: next(each for each in _CHARACTERS if each != chr(code)),
    codes.ANY: lambda _: "a",
    codes.IN: _of_class,
}
_REPEATS: Final = frozenset({codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT})
