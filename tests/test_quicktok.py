"""quicktok counts only what it is known to count as tiktoken does; these tests keep
looking for a text on which they differ.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import types

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.estimate import tokenizer
from ratelimit.estimate.quicktok import Counter, QuickCounters, is_familiar
from ratelimit.estimate.sources import from_quicktok
from ratelimit.estimate.tokenizer import count

pytest.importorskip("quicktok", reason="quicktok is not installed")
ENCODINGS = ("o200k_base", "cl100k_base")
FAMILIAR = [
    character
    for character in map(chr, [*range(0x10000), *range(0x1F000, 0x20000)])
    if is_familiar(character)
]
# Where a character's class shows: letters of either case, digits, signs, blanks, line
# ends, marks and contractions beside it.
SURROUNDINGS = ("aXb", "AXB", " Xa", "1X2", "  X", "X\n\n", "X\u0301a", "X's", "a'Xb", "X/\r")


def pair(encoding: str) -> tuple[Counter, tiktoken.Encoding]:
    """Load both counters of an encoding."""
    fast, reference = tokenizer.quick.load(encoding), tokenizer.vocabularies.load(encoding)
    assert fast is not None
    assert reference is not None
    return fast, reference


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_familiar_character_counts_alike(encoding: str) -> None:
    """Each of 67,000 characters is of the same class in both: it counts the same in
    surroundings that tell classes apart.
    """
    fast, reference = pair(encoding)
    assert len(FAMILIAR) > 67_000
    for surrounding in SURROUNDINGS:
        for start in range(0, len(FAMILIAR), 2_000):
            text = "\nzq 1 .".join(
                surrounding.replace("X", character) for character in FAMILIAR[start : start + 2_000]
            )
            assert fast(text) == len(reference.encode_ordinary(text)), (
                surrounding,
                hex(ord(FAMILIAR[start])),
            )


# One or two of each class, and what the patterns treat apart, so that sequences of
# classes are tried, not characters.
CLASSES = (
    *"abszABSZ",
    *"'’ \t\n\r/.,-_1²Ⅷ١",
    *("  ", "\xa0", "\u3000", "\x85", "'s", "'S", "'ll", "'LL", "'ve"),
    *"éßǅʰªİKא國가ー\u0301\u0903\u200d🎉",
    *("\x00", "\x1c", "<|endoftext|>"),
)


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.lists(st.sampled_from(CLASSES), max_size=40).map("".join),
        st.text(alphabet=st.characters(codec="ascii")),
    )
)
def test_every_sequence_counts_alike(encoding: str, text: str) -> None:
    """Any mixture of classes, contractions, blanks and line ends counts the same in
    both.
    """
    fast, reference = pair(encoding)

    assert is_familiar(text)
    assert fast(text) == len(reference.encode_ordinary(text))


@pytest.mark.parametrize(
    "text", ["\u088f's", "a'ſ b", "\U000323d5\n\n", "\ua7ce's", "\ud800", "\U00010955\n\n"]
)
def test_where_they_differ_tiktoken_counts(text: str) -> None:
    """The characters on which quicktok is known to differ, or which it refuses, are
    left to tiktoken, in the midst of others too.
    """
    _fast, reference = pair("o200k_base")

    assert not is_familiar(text)
    assert count(text, "o200k_base") == len(reference.encode_ordinary(text))
    long = f"{'word ' * 10_000}{text} {'word ' * 10_000}"
    assert count(long, "o200k_base") == len(reference.encode_ordinary(long))


def test_another_vocabulary_does_not_count() -> None:
    """A quicktok whose file is not tiktoken's to the byte is not used."""

    def spoiled(url: str, sha256: str) -> bytes:
        return from_quicktok(url, sha256).replace(b" 9999\n", b" 9998\n", 1)

    assert QuickCounters(spoiled).load("cl100k_base") is None
    assert QuickCounters().load("cl100k_base") is not None


def test_what_it_does_not_carry_is_left_to_others() -> None:
    """An encoding without a file in quicktok is no error; names that share a vocabulary
    share a counter.
    """
    counters = QuickCounters()

    assert counters.load("p50k_base") is None
    assert counters.is_ready("p50k_base")
    assert not counters.is_ready("o200k_base")
    assert counters.load("o200k_harmony") == counters.load("o200k_base") is not None


def test_a_broken_quicktok_is_left_aside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A build for another Python, or a release with other names, costs a log line and
    no count.
    """
    broken = types.ModuleType("quicktok")
    broken.__spec__ = importlib.util.find_spec("quicktok")
    monkeypatch.setitem(sys.modules, "quicktok", broken)
    caplog.set_level(logging.INFO, "ratelimit.estimate.quicktok")

    assert QuickCounters().load("cl100k_base") is None
    assert "quicktok does not count cl100k_base" in caplog.text
