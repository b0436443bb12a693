"""The watch over the package's log: no warning of ours passes this suite unseen.

Owns a small suite that warns, run by a pytest of its own under this suite's conftest.
Must never reach into the watch: what counts is which of the small tests fail.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
WARNS = """
    import threading
    import pytest
    from ratelimit.errors import caution

    expects_two = pytest.mark.logs("first", "second")

    def test_unmarked():
        caution("first")

    def test_in_a_thread():
        thread = threading.Thread(target=caution, args=["elsewhere"])
        thread.start()
        thread.join()

    @expects_two
    def test_one_is_missing():
        caution("first")

    @expects_two
    def test_one_too_many():
        caution("first")
        caution("second")
        caution("third")

    @expects_two
    def test_as_expected():
        caution("the first")
        caution("the second")
"""


def test_a_warning_fails_the_test_that_does_not_expect_it(pytester: pytest.Pytester) -> None:
    """Where warnings are errors, a warning of ours is logged; what is logged and not
    named by the test's marker fails it, and so does what is named and not logged.
    """
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(WARNS)

    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", "-rE")

    result.assert_outcomes(passed=5, errors=4)
    result.stdout.fnmatch_lines_random(
        [
            "*not expected: first*",
            "*not expected: elsewhere*",
            "*expected, not logged: second*",
            "*not expected: third*",
            "ERROR *::test_unmarked*",
            "ERROR *::test_in_a_thread*",
            "ERROR *::test_one_is_missing*",
            "ERROR *::test_one_too_many*",
        ]
    )
