"""The race of the benchmark `compare.py`: honest rows, the same bytes for one seed.

Owns courses of a few calls on the virtual clock, run by every client. Must never hold
figures that only a long run shows.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.race import entries, peers
from benchmarks.race.clients import CLIENTS, OURS
from benchmarks.race.results import Row
from benchmarks.race.running import race
from benchmarks.race.servers import course_for, server_for, terms_of
from benchmarks.race.show import as_json, plot, promised, show
from benchmarks.race.workloads import WORKLOADS
from ratelimit.testing import VirtualClock

pytestmark = pytest.mark.no_cover  # long simulations, which coverage would make twice as long

SMALL = (0.12, 0.2)
"""A few dozen calls on a fifth of the limits: they have to wait for minutes."""

LOSING = ("sdk retries", "semaphore", "tenacity")
"""Clients that give up on some calls of the small course."""


def small(client: str, variant: str = "P", workload: str = "tokens", *, trace: bool = False) -> Row:
    """Race one client on a small course."""
    return race(client, course_for(workload, variant, 0, scale=SMALL), variant, 0, trace=trace)


@pytest.mark.parametrize("client", sorted(set(CLIENTS) - set(LOSING)))
def test_a_client_that_answers_every_call_does_not_beat_the_bound(client: str) -> None:
    """No client is faster than the lower bound allows, and these lose no call."""
    row = small(client)

    assert row.calls > 20
    assert (row.answered, row.failed) == (row.calls, 0)
    assert row.ratio >= 1


@pytest.mark.parametrize(
    "client", [*LOSING, *(name for name in peers.PEERS if not peers.missing(name, real=False))]
)
def test_every_call_is_answered_or_failed(client: str) -> None:
    """A row leaves out no call, and each call that a client lost was refused before."""
    row = small(client)

    assert row.answered + row.failed == row.calls > 20
    assert row.rejected >= row.failed


@pytest.mark.parametrize("client", sorted(OURS))
@pytest.mark.parametrize("variant", ["P", "I", "C", "H"])
def test_our_doors_are_not_refused(client: str, variant: str) -> None:
    """Our own clients are never refused and lose nothing, on a small course."""
    row = race(client, course_for("tokens", variant, 0, scale=(0.3, 1)), variant, 0)

    assert (row.rejected, row.failed, row.answered) == (0, 0, row.calls), row.error


def test_a_client_that_ignores_limits_is_refused() -> None:
    """A server that refused no call would make every client look good."""
    row = small("semaphore")

    assert row.rejected == row.failed > 0
    assert row.verdict == "failures"
    assert row.error.startswith("RateLimitError")


def test_a_debt_left_at_the_server_counts() -> None:
    """A bucket overdrawn at the end is no speed: the race lasts until it is paid."""
    course = course_for("at once", "P", 0, scale=(0.03, 0.2))
    row = race("sdk retries", course, "P", 0)

    assert row.debt > 0
    assert row.seconds >= row.bound


@pytest.mark.parametrize("variant", ["P", "I", "A", "B", "C", "H"])
def test_the_bound_counts_with_what_the_server_takes(variant: str) -> None:
    """The bound takes for a call what the server's ledger and level show."""
    course = course_for("short", variant, 0, scale=(0.02, 1))
    server = server_for(course, variant, 0)
    terms = terms_of(course, variant)
    demands = next(demands for bucket, demands in terms.buckets.items() if bucket.name == "tpm/60s")

    async def one_by_one() -> list[float]:
        import asyncio

        import httpx2

        left = []
        async with httpx2.AsyncClient(
            transport=server.transport(), base_url="http://fake/v1/"
        ) as http:
            for job in course.jobs:
                await asyncio.sleep(600)
                await http.post("chat/completions", json=dict(job.body), headers=job.headers)
                left.append(course.limits["tpm"] - server.levels()["org-fake/tpm"])
        return left

    taken = VirtualClock().run(one_by_one)

    assert [demand.admitted for demand in demands] == [entry.charge for entry in server.ledger]
    way_back = 0.1 + course.limits["tpm"] / 60 * 3  # what drips in until the answer is there
    for demand, seen in zip(demands, taken, strict=True):
        assert demand.settled - way_back <= seen <= demand.settled + 1


def test_the_same_seed_gives_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """Table and JSON depend on the seed alone, and another seed is other work."""
    seen = []
    for seed in (3, 3, 4):
        rows = [
            race(name, course_for("tokens", "P", seed, scale=SMALL), "P", seed)
            for name in ("tenacity", "sdk retries", "limiter/learned")
        ]
        show(rows, {"litellm router": "why"})
        seen.append((capsys.readouterr().out, as_json(rows, {}, 0, deterministic=True)))

    assert seen[0] == seen[1]
    assert seen[0][0] != seen[2][0]
    assert "cpu_seconds" not in seen[0][1]


def test_the_command_writes_what_it_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the table, writes the file, and exits with 0 where our clients
    kept their promise.
    """
    written = tmp_path / "out.json"

    assert (
        compare.main(
            [
                "--only",
                "limiter/wrapped",
                "--variant",
                "P",
                "--workload",
                "poisson 50",
                "--json",
                str(written),
            ]
        )
        == 0
    )
    assert "poisson 50" in capsys.readouterr().out
    assert [row["client"] for row in json.loads(written.read_text())["rows"]] == ["limiter/wrapped"]


def test_the_json_has_what_is_promised_of_it() -> None:
    """Rows carry the fields that readers of the JSON look for."""
    row = json.loads(as_json([small("semaphore")], {}, 0, deterministic=False))["rows"][0]

    fields = {
        "client",
        "variant",
        "workload",
        "answered",
        "rejected",
        "failed",
        "seconds",
        "bound",
        "ratio",
        "wait_p99",
        "cpu_seconds",
    }
    assert fields | {"wait_p50", "wait_longest", "stall_seconds", "clock"} <= row.keys()


def test_falling_short_is_reported() -> None:
    """A 429, a lost call or a slow row of ours ends the benchmark with a complaint; a
    peer's does not.
    """
    good = replace(small("limiter/wrapped"), rejected=0, failed=0, ratio=1.1)
    bad = [replace(good, rejected=1), replace(good, failed=1), replace(good, ratio=1.11)]

    assert promised([good]) == []
    assert len(promised(bad)) == 3
    assert promised([replace(each, client="semaphore") for each in bad]) == []


def test_the_picture_is_drawn_from_the_traces(tmp_path: Path) -> None:
    """Each client's row of the plot comes from its trace of the server's ledger."""
    rows = [small("semaphore", trace=True), small("limiter/learned", trace=True)]
    plot(rows, tmp_path / "race.png")

    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")
    assert rows[0].trace is not None
    assert len(rows[0].trace.refused) == rows[0].rejected


def test_the_default_set_holds_every_promise() -> None:
    """Ours run every workload on every promised variant; every client runs every
    workload on P.
    """
    rows = set(entries.chosen(list(CLIENTS), [], [], everything=False))

    usual = set(WORKLOADS) - set(entries.REAL)
    promised_rows = {
        (ours, variant, workload) for ours in OURS for variant in "PICH" for workload in usual
    }
    assert {row for row in promised_rows if row[1:] not in entries.UNFIT} <= rows
    assert {(client, "P", workload) for client in CLIENTS for workload in usual} <= rows
    assert all((client, "F", entries.TENANT) in rows for client in CLIENTS)


def test_names_that_stand_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """`limiter` means its three doors; what is not installed is skipped with the words
    that bring it.
    """
    assert set(entries.clients_named(["limiter"])) == OURS
    assert entries.clients_named(["limiter", "semaphore"])[-1] == "semaphore"
    with pytest.raises(SystemExit, match="no client is called 'nobody'"):
        entries.clients_named(["nobody"])
    monkeypatch.setattr(
        peers, "REQUIREMENTS", {"litellm router": ("no_such_module", "litellm>=1.80", "3.9")}
    )
    assert entries.skipped(["litellm router", "semaphore"], real=True) == {
        "litellm router": "pip install 'litellm>=1.80'"
    }
