"""`ratelimit top` and `ratelimit run --store`: one quota, seen and shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ratelimit import RateLimiter
from ratelimit.cli import main
from ratelimit.commands.show import Output
from ratelimit.commands.top.command import top
from ratelimit.stores.quota_file import QuotaFile
from ratelimit.testing import FakeOpenAI
from tests.run_files import run, serving, write


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A folder for a quota."""
    return f"file:{tmp_path}/quota"


def test_top_tells_levels_calls_and_processes(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In JSON, once."""
    one, other = (RateLimiter(rpd=100, concurrency=5, store=store) for _ in range(2))
    lease = one.acquire_nowait(requests=30)
    other.acquire_nowait(requests=1).settle(requests=1)
    assert main(["top", "--store", store, "--json"]) == 0

    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["levels"][0]["level"] == pytest.approx(69, abs=0.1)
    assert (shown["family"], shown["in_flight"], shown["concurrency"]) == ("*", 1, 5)
    assert [process["admitted"] for process in shown["processes"]] == [1, 1]
    lease.close()


def test_top_locks_nothing(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows a quota that another process holds, and holds nobody up itself."""
    limiter = RateLimiter(rpd=100, store=store)
    held = QuotaFile(tmp_path / "quota" / "%2A.quota")
    assert held.lock()
    assert main(["top", "--store", store]) == 0
    held.close()

    assert "100 requests/day" in capsys.readouterr().out
    limiter.acquire_nowait(requests=1)


def test_top_ends_quietly(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C is how one leaves it."""
    limiter = RateLimiter(rpd=100, store=store)
    looks = 0

    def wait(_: float) -> None:
        nonlocal looks
        looks += 1
        limiter.acquire_nowait(requests=1)
        if looks == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Output, "is_terminal", True)
    assert top(store=store, wait=wait) == 0

    assert looks == 3
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "sentence"),
    [("redis://host", '"file:" and a folder'), ("file:/nowhere/at/all", "no quota in")],
)
def test_what_is_no_quota_is_said(
    given: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence, with the status of a wrong argument."""
    assert main(["top", "--store", given]) == 2

    assert sentence in capsys.readouterr().err


def test_runs_share_one_quota(store: str, tmp_path: Path) -> None:
    """A second run goes on from the level that the first one has left."""
    with serving() as server:
        assert isinstance(server, FakeOpenAI)
        for name in ("one", "two"):
            options = ("--rpd", 100, "--store", store)
            assert run(write(tmp_path / name, 10), "-o", tmp_path / f"{name}.out", *options) == 0

    left = RateLimiter(rpd=100, store=store).statistics().families["*"]
    assert left.levels["requests/86400s"] == pytest.approx(80, abs=0.5)


def test_runs_of_other_models_share_no_learned_limits(store: str, tmp_path: Path) -> None:
    """What one model's answers show is no limit of another one's."""
    with serving():
        assert run(write(tmp_path / "in", 2), "-o", tmp_path / "out", "--store", store) == 0

    assert [path.name for path in (tmp_path / "quota").iterdir()] == ["gpt-4o.quota"]


def test_a_dry_run_takes_no_part_in_a_quota(store: str, tmp_path: Path) -> None:
    """It sends nothing, so it makes nothing."""
    assert run(write(tmp_path / "in", 2), "--dry-run", "--store", store) == 0

    assert not (tmp_path / "quota").exists()
