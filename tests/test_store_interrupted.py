"""Ctrl-C at every moment of what a store on a file does, once and twice in a row.

Afterwards the file is unlocked, every process sees the same, no slot is lost, and each
debit and each settlement has been written exactly once.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ratelimit import Limit, Limits, RequestTooLarge
from ratelimit.stores.folder.quota_file import QuotaFile
from ratelimit.stores.folder.store import FileStore
from ratelimit.stores.opening import opener
from ratelimit.stores.payments import Payment
from tests.interruptions import double_interruptions, interruptions

LIMITS = Limits(Limit("requests", 100, 1e9), Limit("tokens", 10_000, 1e9), concurrency=50)

Runner = Callable[[Callable[[], object]], Any]
RUNNERS = [
    pytest.param(interruptions, id="once"),
    pytest.param(lambda act: double_interruptions(act, step=11), id="twice"),
]


class Quota:
    """Two stores on one file, as of two processes, with some calls in flight."""

    def __init__(self, folder: Path, *, written: bool) -> None:
        store = f"file:{tempfile.mkdtemp(dir=folder)}"
        make = opener(store, "raise", time.monotonic, "clock of a test")
        one, other = make("*", LIMITS, 0.0, 0.0), make("*", LIMITS, 0.0, 0.0)
        assert isinstance(one, FileStore)
        assert isinstance(other, FileStore)
        self.one, self.other = one, other
        self.path = Path(store.removeprefix("file:")) / "%2A.quota"
        self.calls = [self.call() for _ in range(2)]
        for call in self.calls:
            assert self.one.take(call, 0.0) is None
        if written:  # what the other process has written has to be taken over first
            self.others = self.call()
            assert self.other.take(self.others, 0.0) is None
        self.written = written

    def call(self) -> Payment:
        return Payment({"requests": 1, "tokens": 100}, 60)

    def end(self) -> None:
        """Settle all calls, and let both processes look at every figure."""
        one, other = self.one, self.other
        assert not one._lock.locked()
        assert not one._inside
        if self.written:
            other.settle(self.others, {"tokens": 10}, 0.0)  # a record of another process
        another = QuotaFile(self.path)
        assert another.lock(0.0)
        another.unlock()

        taken = [call for call in self.calls if call.paid]
        flying = [call for call in taken if not call.ended]
        if not one._inbox:
            one.refresh(0.0)
            assert one.in_flight == len(flying)
            other.refresh(0.0)
            assert other.in_flight == len(flying)
            assert other._buckets.deferred == 60 * len(flying)
        for call in taken:
            one.settle(call, {"tokens": 10}, 0.0)
        for store in (one, other):
            levels = store.levels(0.0)
            assert store.in_flight == store._buckets.deferred == 0
            assert not store._inbox
            assert levels["tokens", 1e9] == pytest.approx(
                10_000 - 10 * (len(taken) + self.written), abs=1e-3
            )
            assert levels["requests", 1e9] == pytest.approx(
                100 - len(taken) - self.written, abs=1e-3
            )


def take(quota: Quota) -> None:
    """Admit one more call."""
    quota.calls.append(quota.call())
    quota.one.take(quota.calls[-1], 0.0)


def take_too_much(quota: Quota) -> None:
    """Ask for more than the limit."""
    with suppress(RequestTooLarge):
        quota.one.take(Payment({"tokens": 1e6}), 0.0)


def settle(quota: Quota) -> None:
    """Settle the first call."""
    quota.one.settle(quota.calls[0], {"tokens": 300}, 0.0)


def look(quota: Quota) -> None:
    """Look at the levels."""
    quota.one.levels(0.0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for many quotas."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("written", [False, True], ids=["own record", "another's record"])
@pytest.mark.parametrize("act", [take, take_too_much, settle, look])
def test_ctrl_c_leaves_a_shared_quota_in_order(
    act: Callable[[Quota], None], written: bool, run: Runner, folder: Path
) -> None:
    """No debit is lost, none is made twice, and nobody is locked out."""
    some = [Quota(folder, written=written)]
    for _ in run(lambda: act(some[-1])):
        some[-1].end()
        some[-1] = Quota(folder, written=written)
    some[-1].end()

    assert len(list(folder.iterdir())) > 10
