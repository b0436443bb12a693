"""A model's name tells its encoding, and what was counted is remembered."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.estimate import tokenizer
from ratelimit.estimate.encodings import encoding_for
from ratelimit.estimate.tokenizer import (
    count,
)


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("gpt-4.5-preview", "o200k_base"),
        ("gpt-5.6-pro", "o200k_base"),
        ("o1", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-1106-preview", "cl100k_base"),
        ("gpt-4-0125-preview", "cl100k_base"),
        ("gpt-3.5-turbo-instruct", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("davinci-002", "cl100k_base"),
        ("text-davinci-003", "p50k_base"),
        ("gpt2", "gpt2"),
        ("gpt-oss-120b", "o200k_harmony"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "o200k_base"),
        ("ft:gpt-4.1-mini:org::id", "o200k_base"),
        ("ft:gpt-4-0613:org::id", "cl100k_base"),
        ("ft:gpt-3.5-turbo:org::id", "cl100k_base"),
        ("davinci:ft-org-2023-01-01", "r50k_base"),
        ("openai/gpt-4.1", "o200k_base"),
        ("openrouter/openai/gpt-oss-20b", "o200k_harmony"),
        ("openai:gpt-4", "cl100k_base"),
        ("gateway/openai:gpt-3.5-turbo", "cl100k_base"),
        ("azure:prod-gpt-35-turbo", "cl100k_base"),
        ("openai:text-davinci-003", "p50k_base"),
        ("openai/ft:gpt-4-0613:acme::id", "cl100k_base"),
        ("openai:ft:gpt-3.5-turbo:gpt-shop/eu::id", "cl100k_base"),
        ("openai/gpt-4:free", "cl100k_base"),
        ("qwen2.5:7b", "cl100k_base"),
        ("ollama:llama3:8b", "cl100k_base"),
        ("GPT-4O", "o200k_base"),
        ("my-gpt4o", "o200k_base"),
        ("gpt-4-o-mini", "o200k_base"),
        ("gpt-4-1-mini-eu", "o200k_base"),
        ("gpt41-prod", "o200k_base"),
        ("prod-gpt-35-turbo-16k", "cl100k_base"),
        ("our-gpt-4-1106-preview", "cl100k_base"),
        ("gpt4-turbo-eastus", "cl100k_base"),
        ("team-text-embedding-3-large", "cl100k_base"),
        ("ada-002", "cl100k_base"),
        ("code-davinci-002-canary", "p50k_base"),
        ("meta-llama/Llama-3.1-8B", "cl100k_base"),
        ("qwen2.5-72b", "cl100k_base"),
        ("deepseek-chat", "o200k_base"),
        ("claude-sonnet", "o200k_base"),
        ("prod", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_a_name_tells_its_encoding(model: str, encoding: str) -> None:
    """Dated, fine-tuned, prefixed, deployed and foreign names each get the encoding of
    the model behind them.
    """
    assert encoding_for(model) == encoding


@given(st.one_of(st.text(), st.from_regex(r"(ft:)?[a-z/]*gpt[-_ ]?[0-9]?[-.o0-9:]*")))
def test_any_name_has_an_encoding(model: str) -> None:
    """No name raises, and each result is one that can count."""
    assert count("a", encoding_for(model)) == 1


def test_a_huge_name_is_not_kept() -> None:
    """A megabyte in the field `model` is neither read whole nor remembered."""
    assert encoding_for("gpt-4" + "x" * 1_000_000) == "cl100k_base"
    assert encoding_for("x" * 1_000_000 + "gpt-4") == "o200k_base"


FORKED = """
    import os, threading
    from ratelimit.estimate import tokenizer

    held, done = threading.Event(), threading.Event()

    def load():
        # Another thread is in the middle of loading a vocabulary.
        with tokenizer.vocabularies._lock, tokenizer.quick._lock:
            held.set()
            done.wait()

    threading.Thread(target=load, daemon=True).start()
    held.wait()
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(60)  # never hang the suite
        os._exit(0 if tokenizer.count("Hello", "o200k_base") else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    assert os.waitstatus_to_exitcode(status) == 0, status
"""


def test_a_child_loads_its_own_vocabulary() -> None:
    """A fork while another thread loads a vocabulary leaves a lock that is never
    released in the child: it must have its own.
    """
    done = subprocess.run(  # our own text
        [sys.executable, "-c", textwrap.dedent(FORKED)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def key(number: int) -> tuple[int, int, str]:
    """Make the key of one text among many."""
    return number, 3, "o200k_base"


def test_memory_is_bounded() -> None:
    """However many texts are counted, two generations of them are remembered."""
    memory = tokenizer._Memory(100)
    for number in range(10_000):
        memory.put(key(number), number)

    assert len(memory.young) + len(memory.old) <= 200
    assert memory.get(key(9_999)) == 9_999
    assert memory.get(key(1)) is None


def test_what_is_used_stays_remembered() -> None:
    """A system prompt that every call repeats outlives any number of other texts."""
    memory = tokenizer._Memory(100)
    system = key(-1)
    memory.put(system, 7)
    for number in range(10_000):
        memory.put(key(number), number)
        assert memory.get(system) == 7
