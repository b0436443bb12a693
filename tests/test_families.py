"""The patterns under which limits are given for models."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.families import Patterns, pattern_of

names = st.text("ab-", max_size=5)
patterns = st.lists(
    st.lists(st.text("ab-*?[]", min_size=1, max_size=5), min_size=1, max_size=2)
    .map("|".join)
    .filter(lambda pattern: pattern != "*"),
    max_size=6,
    unique=True,
)


@given(patterns, names)
def test_the_longest_glob_that_fits_is_found(given_patterns: list[str], name: str) -> None:
    """However a glob is looked up, by its beginning, its end or as a whole, it is found
    exactly where `fnmatch` says that it fits, and the most specific one wins.
    """
    parts = [(part, pattern) for pattern in given_patterns for part in pattern.split("|")]
    if name in given_patterns or any(part == name for part, _ in parts):
        assert name in str(pattern_of(name, given_patterns)).split("|") + given_patterns
        return
    fits = [
        (len(part.replace("*", "")), pattern)
        for part, pattern in parts
        if part != "*" and any(sign in part for sign in "*?[") and fnmatch.fnmatchcase(name, part)
    ]
    rest = next((pattern for part, pattern in parts if part == "*"), None)
    assert pattern_of(name, given_patterns) == (max(fits)[1] if fits else rest)


@pytest.mark.parametrize("form", ["model-{}", "model-{}-*", "*-of-model-{}"])
def test_a_model_among_thousands_is_looked_up_in_a_few_steps(form: str) -> None:
    """Limits for each of many models cost no call a walk over all of them."""
    found = Patterns(form.format(number) for number in range(5_000))

    assert found._globs == []
    assert len(found._of_beginnings) + len(found._of_ends) <= 4
    assert found.of(form.format(4_999).replace("*", "of")) == form.format(4_999)
