"""`ratelimit top` and `ratelimit run --store`: one quota, seen and shared."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.sharing.redis_server import RedisServer
from ratelimit import Limits, RateLimiter
from ratelimit.cli import main
from ratelimit.commands.show import Output
from ratelimit.commands.top.command import top
from ratelimit.commands.top.look import look
from ratelimit.stores.folder.quota_file import QuotaFile
from ratelimit.testing import FakeOpenAI
from tests.run_files import run, serving, write


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


def test_top_locks_nothing(store: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows a quota that another process holds, and holds nobody up itself."""
    limiter = RateLimiter(rpd=100, store=store)
    held = QuotaFile(path)
    assert held.lock()
    assert main(["top", "--store", store]) == 0
    held.close()

    assert "100 requests/day" in capsys.readouterr().out
    limiter.acquire_nowait(requests=1)


def test_top_makes_nothing(store: str, tmp_path: Path) -> None:
    """What it looks at stays as it is: no file is made, an empty one stays empty."""
    RateLimiter(rpd=100, store=store)
    quota = tmp_path / "quota"
    (quota / "begun.quota").touch()
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in quota.iterdir()}
    assert main(["top", "--store", store]) == 0
    for missing in (quota / "none.quota", tmp_path / "nowhere" / "none.quota"):
        with pytest.raises(FileNotFoundError):
            QuotaFile(missing, only_read=True)

    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in quota.iterdir()}
    assert after == before
    assert [path.name for path in tmp_path.iterdir()] == ["quota"]


def test_a_file_that_is_only_read_cannot_be_changed(store: str, path: Path) -> None:
    """Neither locked nor written, by whatever mistake."""
    RateLimiter(rpd=100, store=store)
    shown = QuotaFile(path, only_read=True)
    record = shown.read()
    assert record is not None

    with pytest.raises(OSError, match="only read"):
        shown.lock()
    with pytest.raises(TypeError, match="readonly"):
        shown.write(record)


def test_a_pipe_in_the_folder_is_said(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing waits for somebody to write to it."""
    (tmp_path / "quota").mkdir()
    os.mkfifo(tmp_path / "quota" / "pipe.quota")

    assert main(["top", "--store", store]) == 2
    assert "pipe.quota cannot be read" in capsys.readouterr().err


def pages(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    store: str,
    *between: tuple[float, Callable[[], object]],
) -> list[str]:
    """Return what a terminal shows, until Ctrl-C; ``between`` happens between looks.

    :param between: each with the seconds that pass until the next look.
    """
    shown: list[str] = []
    happens = iter(between)
    now = 0.0

    def wait(_: float) -> None:
        nonlocal now
        shown.append(re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().out))
        try:
            seconds, happen = next(happens)
        except StopIteration:
            raise KeyboardInterrupt from None
        now += seconds
        happen()

    monkeypatch.setattr(Output, "is_terminal", True)
    monkeypatch.setenv("TERM", "xterm")
    assert top(store=store, wait=wait, clock=lambda: now) == 0
    assert "Traceback" not in capsys.readouterr().err
    return shown


def test_top_ends_quietly(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C is how one leaves it."""
    limiter = RateLimiter(rpd=100, store=store)

    def call() -> None:
        limiter.acquire_nowait(requests=1)

    assert len(pages(monkeypatch, capsys, store, (1, call), (1, call))) == 3


def test_top_looks_once_where_it_cannot_draw(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a dumb terminal, as in a pipe, nothing can be drawn in place."""
    RateLimiter(rpd=100, store=store)
    monkeypatch.setattr(Output, "is_terminal", True)
    monkeypatch.setenv("TERM", "dumb")

    assert top(store=store, wait=lambda _: pytest.fail("it looks once more")) == 0
    assert "100 requests/day" in capsys.readouterr().out


def test_top_shows_no_rate_that_was_not_measured(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first look has none to compare with; later ones name the time they compare,
    which is longer where the terminal was stopped.
    """
    limiter = RateLimiter(rpd=100, store=store)

    def calls() -> None:
        for _ in range(3):
            limiter.acquire_nowait(requests=1)

    first, second, third = pages(monkeypatch, capsys, store, (1, calls), (60, calls))

    assert "of them in" not in first
    assert "3 admitted, 3 of them in the last 1 s" in second
    assert "6 admitted, 3 of them in the last 1 min" in third


def test_top_goes_on_while_a_quota_is_gone(
    store: str,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder that is emptied while it is looked at may be filled again; what a new
    file counts is no rate beside an old one's.
    """
    limiters = [RateLimiter(rpd=100, store=store)]
    for _ in range(9):
        limiters[0].acquire_nowait(requests=1)

    def again() -> None:
        limiters.append(RateLimiter(rpd=100, store=store))
        limiters[-1].acquire_nowait(requests=1)

    def replace() -> None:
        path.unlink()
        again()

    first, second, third, fourth, fifth = pages(
        monkeypatch,
        capsys,
        store,
        (1, path.unlink),
        (1, again),
        (1, lambda: limiters[-1].acquire_nowait(requests=1)),
        (1, replace),
    )

    assert "9 admitted" in first
    assert "no quota in" in second
    assert ", 1 admitted; 1 processes" in third
    assert "2 admitted, 1 of them in the last 1 s" in fourth
    assert ", 1 admitted; 1 processes" in fifth


def test_top_passes_over_a_file_that_goes_while_it_looks(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may delete it between the listing and the reading."""
    RateLimiter(limits={"a": Limits(rpd=1), "b": Limits(rpd=1)}, store=store)
    gone = tmp_path / "quota" / "a.quota"
    listed = Path.glob

    def glob(self: Path, pattern: str) -> list[Path]:
        found = list(listed(self, pattern))
        gone.unlink()
        return found

    monkeypatch.setattr(Path, "glob", glob)

    assert [one.family for one in look(tmp_path / "quota")] == ["b"]
    assert not gone.exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("http://host", '"file:" and a folder'),
        ("redis://:secret@127.0.0.1:1", "cannot be asked"),
        ("file:/nowhere/at/all", "no quota in"),
    ],
)
def test_what_is_no_quota_is_said(
    given: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence, with the status of a wrong argument."""
    assert main(["top", "--store", given]) == 2

    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["file", "redis"])
def test_runs_share_one_quota(
    store: str, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """A second run goes on from the level that the first one has left."""
    if kind == "redis":
        store = f"{request.getfixturevalue('redis_server').url}?quota=runs"
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


def test_top_shows_a_quota_in_a_server(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its levels, calls and processes, by host and number; and it changes nothing."""
    store = f"{redis_server.url}?quota=t*p"
    one, other = (RateLimiter(rpd=100, concurrency=5, store=store) for _ in range(2))
    lease = one.acquire_nowait(requests=30)
    RateLimiter(rpd=100, store=f"{redis_server.url}?quota=top")  # another quota
    before = redis_server.client.get("ratelimit:t*p:*")
    assert main(["top", "--store", store, "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert main(["top", "--store", store]) == 0

    assert shown["levels"][0]["level"] == pytest.approx(70, abs=0.5)
    assert (shown["family"], shown["in_flight"], shown["concurrency"]) == ("*", 1, 5)
    assert sorted(process["admitted"] for process in shown["processes"]) == [0, 1]
    assert {process["process"].split()[1] for process in shown["processes"]} == {str(os.getpid())}
    assert "100 requests/day" in capsys.readouterr().out
    assert redis_server.client.get("ratelimit:t*p:*") == before
    lease.close()
    del other


def test_a_server_without_a_quota_is_said(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence."""
    assert main(["top", "--store", f"{redis_server.url}?quota=none"]) == 2

    assert "no quota in that server yet" in capsys.readouterr().err


def test_a_dry_run_refuses_what_is_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the run that it stands for does, before anything is shown."""
    assert run(write(tmp_path / "in", 2), "--dry-run", "--store", "nonsense") == 2

    assert "store= is" in capsys.readouterr().err
