"""Each command that a page names can be typed: the program is there and takes the
arguments that stand behind it.

Owns how commands are found on pages. Must never run one: parsing is all.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ratelimit.commands.arguments import make_parser

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md"}
    - {ROOT / "CHANGELOG.md"}
)
"""The changelog names what once was."""
FENCED = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
SCRIPTS = {path.name for path in (ROOT / "benchmarks").glob("*.py")}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each command of the pages, as the page and the words that are typed."""
    for page in PAGES:
        text = page.read_text("utf-8")
        blocks = [block for language, block in FENCED.findall(text) if language in {"", "sh"}]
        fenced = "".join(blocks).splitlines()
        prose = FENCED.sub("", text)
        indented = re.findall(r"^    (\S.*)$", prose, re.MULTILINE)
        inline = INLINE.findall(prose)
        for line in (*indented, *fenced, *inline):
            for typed in re.split(r";|&&| \| ", line):
                words = words_of(typed)
                if words:
                    yield page.name, words


def words_of(typed: str) -> list[str]:
    """Return the words of a command of ours, as a shell reads them; of others none."""
    try:
        words = shlex.split(typed, comments=True)
    except ValueError:  # prose or Python with one quote
        return []
    while words and (words[0] == "python" or re.fullmatch(r"\w+=\S*", words[0])):
        del words[0]
    if not words:
        return []
    words[0] = words[0].removeprefix(".venv/bin/").removeprefix("benchmarks/")
    known = words[0] in SCRIPTS or (words[0] in {"ratelimit", "make"} and len(words) > 1)
    return words if known else []


FOUND = [(page, words) for page, words in commands()]
OURS = sorted({(page, *words) for page, words in FOUND if words[0] == "ratelimit"})
BENCHMARKS = sorted({(page, *words) for page, words in FOUND if words[0] in SCRIPTS})
TARGETS = {words[1] for _, words in FOUND if words[0] == "make"}


@pytest.mark.parametrize("typed", OURS, ids=" ".join)
def test_each_command_of_ours_takes_its_arguments(typed: tuple[str, ...]) -> None:
    """What is named alone is a command; what has arguments is parsed whole."""
    _, _, command, *rest = typed
    parser = make_parser()

    assert command in parser.commands
    if rest:
        parser.parse_args([command, *rest])


class Parsed(Exception):
    """A script has read its arguments."""


@pytest.mark.parametrize("typed", BENCHMARKS, ids=" ".join)
def test_each_benchmark_takes_its_arguments(
    typed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script itself reads them, and stops there."""
    _, script, *rest = typed
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        parse(parser, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", [script, *rest])
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])

    with pytest.raises(Parsed):
        runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")


def test_each_target_is_in_the_makefile() -> None:
    """`make` knows what pages tell it to make."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

    assert TARGETS - targets == set()


def test_commands_are_found() -> None:
    """Each command, every documented script and `make test` stand on some page."""
    named = {words[1] for words in OURS}, {words[1] for words in BENCHMARKS}

    assert {words[2] for words in OURS} == set(make_parser().commands)
    assert named[1] == SCRIPTS - {"second_calls.py", "past_charges.py", "recordings.py"}
    assert {"demo", "docs", "test"} <= TARGETS
