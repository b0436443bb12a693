"""Counting one text: exact wherever tiktoken is, close and quick where it is slow or
fails, and never an exception.
"""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.errors import EstimateWarning
from ratelimit.estimate import tokenizer
from ratelimit.estimate.chat import ROLES
from ratelimit.estimate.quicktok import QuickCounters
from ratelimit.estimate.tokenizer import (
    count,
    inexact_counts,
    is_counted,
    is_ready,
    slices,
)
from ratelimit.estimate.vocabulary import Vocabularies

ENCODINGS = ("o200k_base", "cl100k_base")
# What separates tokens, what looks as if it did, letters of several scripts and cases,
# marks, signs, numbers, specials.
PIECES = (
    *"abZ",
    *(" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u3000", "\xa0", "\x1c", "\x85", "\u2028"),
    *("'", "'s", "’", *'.,/-_{"', "//"),
    *"，。国天あーァ가12９²Ⅷ\u0301ǅʰßİª١",
    *("🎉", "\u200d", "\u088f", "\ud800", "\udc00", "<|endoftext|>"),
)
texts = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map("".join))


def _fail(_url: str, _sha256: str) -> bytes:
    raise OSError("no route to host")


NOWHERE = Vocabularies([], _fail, patience=30)
UNINSTALLED = QuickCounters(_fail)


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin with nothing counted."""
    monkeypatch.setattr(tokenizer, "_memory", tokenizer._Memory(tokenizer.REMEMBERED))


@pytest.fixture(params=["quicktok", "tiktoken"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count with quicktok where it is installed, and as if it were not."""
    if request.param == "tiktoken":
        monkeypatch.setattr(tokenizer, "quick", UNINSTALLED)


def reference(encoding: str) -> tiktoken.Encoding:
    """Tiktoken's own encoding, which an installed package or its cache must hold."""
    found = tokenizer.vocabularies.load(encoding)
    if found is None:
        pytest.skip(f"no vocabulary {encoding} on this machine")
    return found


def exact(encoding: str) -> bool:
    """Whether a count in `encoding` is tiktoken's own figure."""
    before = inexact_counts()
    count(f"counted in {encoding}", encoding)
    return inexact_counts() == before


@cache
def patterns() -> tuple[tiktoken.Encoding, ...]:
    """Encodings with each of tiktoken's patterns; the oldest with newer ranks, as seams
    depend on the pattern alone.
    """
    import tiktoken_ext.openai_public as constructors  # type: ignore[import-untyped]

    o200k, cl100k = map(reference, ENCODINGS)
    ranks = cl100k._mergeable_ranks
    r50k = tiktoken.Encoding(
        "", pat_str=constructors.r50k_pat_str, mergeable_ranks=ranks, special_tokens={}
    )
    return o200k, cl100k, r50k


PROSE = (
    "The quick brown fox — who'd jumped 1,234 times — isn't lazy; it's “tired”.\r\n\r\n"
    "\tIt sleeps.   Then\n"
)
CODE = (
    'def f(x: int) -> str:\n    """Don\'t."""\n'
    '    return {"a": [1, 2.5e-3], \'b\': f"{x!r}"}[x // 3]  # ok\n\n\n'
)
CHINESE = "今天天气很好，我们去公园玩吧。明天呢？也许下雨；那就在家里看书、写字！\n"
JSON = '{"id":"msg_0123abcd","content":[{"type":"text","text":"it\'s"}],"score":0.25,"tags":["a","b_c"],"url":"https://e.org/a?b=c"},'
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. Это — правда…\n"
ORDINARY = {"prose": PROSE, "code": CODE, "chinese": CHINESE, "json": JSON, "russian": RUSSIAN}


@pytest.mark.usefixtures("engine")
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts)
def test_a_count_is_tiktokens(text: str) -> None:
    """Any text counts as tiktoken counts it with special tokens as plain text, lone
    surrogates included.
    """
    for encoding in ENCODINGS:
        assert count(text, encoding) == len(reference(encoding).encode(text, disallowed_special=()))


@settings(max_examples=700, deadline=None)
@given(texts)
def test_cutting_at_a_seam_changes_no_token(text: str) -> None:
    """Every place that may be cut is one no token reaches across, in each of tiktoken's
    patterns.
    """
    seams = [seam.start() for seam in tokenizer._SEAM.finditer(text)]
    parts = [text[start:end] for start, end in pairwise([0, *seams, len(text)])]
    for encoding in patterns():
        assert [
            token for part in parts for token in encoding.encode_ordinary(part)
        ] == encoding.encode_ordinary(text)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ORDINARY)
def test_long_ordinary_texts_are_exact(kind: str, encoding: str) -> None:
    """Prose, code, minified JSON and scripts without blanks count exactly, however many
    slices they take.
    """
    chance = random.Random(kind)
    words = ORDINARY[kind].split(" ")
    text = " ".join(
        ORDINARY[kind] if chance.random() < 0.7 else chance.choice(words) for _ in range(4_000)
    )

    assert len(list(slices(text))) > 10
    assert count(text, encoding) == len(reference(encoding).encode_ordinary(text))


def test_slices_are_the_text() -> None:
    """Nothing is lost or doubled between slices, and none is longer than it may be."""
    for text in ("", "a", "a" * tokenizer.SLICE, PROSE * 1_000, "a" * 100_000, " " * 100_001):
        parts = list(slices(text))
        assert "".join(parts) == text
        assert max(map(len, parts)) <= tokenizer.SLICE


def _drawn(letters: str) -> str:
    return "".join(random.Random(1).choices(letters, k=200_000))


PATHOLOGICAL: dict[str, str] = {
    "equal letters": "a" * 200_000,
    "equal signs": "=" * 200_000,
    "one ideograph": "国" * 133_000,
    "ideographs": "今天天气很好我们去公园玩吧" * 10_000,
    "random letters": _drawn("abcdefghijklmnopqrstuvwxyz"),
    "base64": _drawn("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"),
    "binary": _drawn("".join(map(chr, range(256)))),
    "line ends": "\n" * 200_000,
    "blanks": " " * 100_000,  # at about 200,000 tiktoken panics
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", PATHOLOGICAL)
def test_texts_without_a_seam_are_close(kind: str, encoding: str) -> None:
    """A text that has to be cut through a token counts within 0.1 % and two tokens a
    slice of the whole.
    """
    text = PATHOLOGICAL[kind]
    whole = len(reference(encoding).encode_ordinary(text))

    assert abs(count(text, encoding) - whole) <= max(whole / 1_000, 2 * len(list(slices(text))))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "text", [" " * 1_000_000 + "x", "\t " * 500_000 + "x", "\u3000" * 400_000 + "\n x"]
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_blanks_that_make_tiktoken_panic_are_counted(text: str, encoding: str) -> None:
    """A million blanks overflow the stack of tiktoken's expressions, which no `except
    Exception` catches; here they count.
    """
    reference(encoding)

    assert 0 < count(text, encoding) <= len(text)


def test_a_text_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text in another message, or in the next turn of a conversation, costs a
    look and no count.
    """
    reference("o200k_base")
    asked: list[str] = []

    def counting(text: str) -> Iterator[str]:
        asked.append(text)
        return slices(text)

    monkeypatch.setattr(tokenizer, "slices", counting)

    assert not is_counted(PROSE, "o200k_base")
    assert count(PROSE, "o200k_base") == count("".join(list(PROSE)), "o200k_base")
    assert is_counted(PROSE, "o200k_base")
    assert len(asked) == 1
    assert not is_counted(PROSE, "cl100k_base")  # each encoding has its own figure


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base", "o200k_harmony"])
def test_every_role_is_one_token(encoding: str) -> None:
    """The roles of a chat are not looked up for each message, so they must be one token
    wherever messages are counted.
    """
    tokenizer_ = reference(encoding)

    assert {role: len(tokenizer_.encode_ordinary(role)) for role in ROLES} == dict.fromkeys(
        ROLES, 1
    )


@pytest.mark.usefixtures("engine")
def test_no_text_is_kept_alive() -> None:
    """The memory holds figures, not texts: a prompt of a megabyte goes when its call
    has ended.
    """

    class Text(str):
        __slots__ = ("__weakref__",)

    text = Text("remembered by its hash")
    count(text, "o200k_base")
    gone = weakref.ref(text)
    del text
    gc.collect()

    assert gone() is None


@pytest.mark.usefixtures("engine")
def test_a_text_without_a_hash_is_counted() -> None:
    """A subclass of str that defines equality has no hash of its own; it counts as the
    text it is.
    """

    class Prompt(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return self is other

        __hash__ = None  # type: ignore[assignment]

    assert count(Prompt("four letters a token"), "o200k_base") == count(
        "four letters a token", "o200k_base"
    )


@pytest.mark.usefixtures("engine")
def test_threads_count_alike() -> None:
    """Many threads at once, on texts they share, get what one thread gets."""
    lines = [f"{PROSE[: number % 90]} {number}" for number in range(400)] * 2
    expected = [len(reference("o200k_base").encode_ordinary(line)) for line in lines]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda line: count(line, "o200k_base"), lines)) == expected


@pytest.mark.filterwarnings("ignore::ratelimit.errors.EstimateWarning")
@settings(max_examples=200)
@given(texts)
def test_without_any_vocabulary_the_size_serves(text: str) -> None:
    """A machine without a vocabulary takes three bytes for a token, lone surrogates
    included.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "vocabularies", NOWHERE)
        patch.setattr(tokenizer, "quick", UNINSTALLED)

        size = len(text.encode("utf-8", "surrogatepass"))

        assert count(text, "o200k_base") == -(-size // tokenizer.BYTES_PER_TOKEN)
        assert not exact("o200k_base")


def test_an_estimate_by_size_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the download arrives after all, texts that were estimated before are
    counted.
    """
    here = tokenizer.vocabularies
    exactly = len(reference("o200k_base").encode_ordinary(PROSE))
    monkeypatch.setattr(tokenizer, "quick", UNINSTALLED)
    monkeypatch.setattr(tokenizer, "vocabularies", Vocabularies([], _fail, patience=30))
    with pytest.warns(EstimateWarning):
        by_size = count(PROSE, "o200k_base")
    monkeypatch.setattr(tokenizer, "vocabularies", here)

    assert by_size != exactly
    assert count(PROSE, "o200k_base") == exactly


def test_what_quicktok_counts_needs_no_second_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where quicktok counts, tiktoken's 80 MB are not loaded beside it, neither for a
    count nor to know that it is exact.
    """
    pytest.importorskip("quicktok")
    expected = len(reference("o200k_base").encode_ordinary(CHINESE + PROSE))
    monkeypatch.setattr(tokenizer, "vocabularies", NOWHERE)

    assert count(CHINESE + PROSE, "o200k_base") == expected
    assert exact("o200k_base")


def test_what_stands_in_is_not_called_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count with the nearest encoding is better than the size, and does not pass for
    tiktoken's figure.
    """
    expected = len(reference("cl100k_base").encode_ordinary(CODE))
    reference("o200k_base")
    monkeypatch.setattr(tokenizer, "vocabularies", Vocabularies(remote=_fail, patience=30))

    with pytest.warns(EstimateWarning, match="p50k_base"):
        assert count(CODE, "p50k_base") == expected
    assert not exact("p50k_base")
    assert exact("cl100k_base")


@pytest.mark.parametrize(
    "counters", [QuickCounters, lambda: UNINSTALLED], ids=["quicktok", "tiktoken"]
)
def test_ready_foretells_the_load(
    counters: Callable[[], QuickCounters], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limiter can see that a first count would load a vocabulary, and take it off
    the event loop.
    """
    reference("cl100k_base")
    monkeypatch.setattr(tokenizer, "quick", counters())
    monkeypatch.setattr(tokenizer, "vocabularies", Vocabularies(remote=_fail, patience=30))

    assert not is_ready("cl100k_base")
    count("a", "cl100k_base")
    assert is_ready("cl100k_base")


@pytest.mark.usefixtures("engine")
def test_first_counts_from_many_threads_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that all make the first count wait for one load and none falls back to
    the size.
    """
    expected = len(reference("cl100k_base").encode_ordinary(CHINESE))
    monkeypatch.setattr(tokenizer, "vocabularies", Vocabularies(remote=_fail, patience=30))
    together = threading.Barrier(6)
    figures: list[int] = []

    def work() -> None:
        together.wait(30)
        figures.append(count(CHINESE, "cl100k_base"))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert figures == [expected] * 6
