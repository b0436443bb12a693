"""The package's own words: names and prose keep to the field's terms.

Owns the list of struck words, and where each may not stand. Must never hold an
exception for a file.
"""

from __future__ import annotations

import ast
import io
import re
import shlex
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import ratelimit

ROOT = Path(ratelimit.__file__).parent
CONTRIBUTING = ROOT.parent / "CONTRIBUTING.md"
ROOMS = sorted({path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py")})

NAMES = re.compile(
    "crowds?|others|doubt(s|ed)?|hears?|heard|hearing|leaves|tall(y|ies)|desks?|told|whose|lanes?"
    "|gates?"
)
"""Struck as a word of a name: `forget_others`, `LaneStatistics` and `heard` hold one.
"""

PROSE = re.compile(
    r"\b(crowds?|doubt(s|ed)?|hears?|heard|hearing|tall(y|ies)|desks?|told|whose|lanes?|gates?"
    r"|for ever|so many)\b",
    re.IGNORECASE,
)
"""Struck in comments, docstrings and messages, where "others" is plain English."""

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def files(room: str) -> list[Path]:
    """Return the Python files of one room: a module, or a folder and all in it."""
    path = ROOT / room
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def words(name: str) -> list[str]:
    """Split a name in snake_case or CamelCase into its words, in lower case."""
    return [word.lower() for word in WORD.findall(name)]


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every name that is defined or used in a module, with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for field, value in ast.iter_fields(node):
            if isinstance(value, str) and not isinstance(node, ast.Constant):
                yield line, value
            elif field in {"names", "kwd_attrs"} and isinstance(value, list):
                yield from ((line, each) for each in value if isinstance(each, str))


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments and the strings of a module, line by line."""
    wanted = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in wanted:
            yield from enumerate(token.string.splitlines(), token.start[0])


@pytest.mark.parametrize("room", ROOMS)
def test_names_are_the_fields_own(room: str) -> None:
    """No class, function, field, variable or file is named by a struck word."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files(room)
        for line, name in [(0, path.stem), *names(ast.parse(path.read_text(encoding="utf-8")))]
        if any(NAMES.fullmatch(word) for word in words(name))
    ]

    assert found == []


@pytest.mark.parametrize("room", ROOMS)
def test_prose_is_plain(room: str) -> None:
    """No comment, docstring or message holds a struck word."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.strip()}"
        for path in files(room)
        for line, text in prose(path.read_text(encoding="utf-8"))
        if PROSE.search(text)
    ]

    assert found == []


def test_the_documented_search_finds_nothing() -> None:
    """The `grep` that CONTRIBUTING.md gives prints nothing."""
    (command,) = re.findall(
        r"^    (grep .+)$", CONTRIBUTING.read_text(encoding="utf-8"), re.MULTILINE
    )

    done = subprocess.run(
        shlex.split(command),
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class LaneStatistics: pass", ["lane"]),
        ("def forget_others(self): pass", ["others"]),
        ("self._desk = gate", ["desk", "gate"]),
        ("def f(*, told=None): pass", ["told"]),
        ("from tally import hear as x", ["tally", "hear"]),
        ("try: pass\nexcept E as whose: pass", ["whose"]),
        ("match x:\n case A(heard=1): pass", ["heard"]),
        ("aggregate, slanes, delegates = believers, planes, foretold", []),
    ],
)
def test_a_struck_word_is_found_in_any_kind_of_name(source: str, found: list[str]) -> None:
    """Classes, functions, fields, arguments, imports and patterns are all looked at."""
    every = [word for _, name in names(ast.parse(source)) for word in words(name)]

    assert sorted(word for word in every if NAMES.fullmatch(word)) == sorted(found)
