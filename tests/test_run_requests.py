"""What `ratelimit run` asks, and what it says where there is nothing to ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit.cli import main
from ratelimit.commands.amounts import read_seconds
from ratelimit.commands.run.summary import SHOWN_REASONS
from ratelimit.testing import FakeOpenAI
from tests.run_files import results, run

TOKENS = {"model": "text-embedding-3-small", "input": [1, 2, 3]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    """A server with high limits and quick answers."""
    fake = FakeOpenAI(rpm=600_000, tpm=600_000_000, latency=0.01, output=20)
    with fake.serve() as url:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setattr("ratelimit.commands.run.session.RETRIES", 0)
        yield fake


def write(path: Path, *rows: Any) -> Path:
    """Write rows as lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_endpoint_can_be_named_for_all_lines(server: FakeOpenAI, tmp_path: Path) -> None:
    """The body of an unknown embedding model looks like one for Responses; a line that
    names its endpoint keeps it.
    """
    body = {"model": "bge-m3", "input": "Hi"}
    named = {"custom_id": "n", "url": "/v1/responses", "body": body}
    requests = write(tmp_path / "in", body, body | {"input": "Ho"}, named)
    assert run(requests, "-o", tmp_path / "out", "--endpoint", "embeddings") == 0

    assert sorted(entry.endpoint for entry in server.ledger) == [
        "embeddings",
        "embeddings",
        "responses",
    ]


def test_a_bare_body_may_carry_its_url_and_name(server: FakeOpenAI, tmp_path: Path) -> None:
    """As a line of the Batch API does; neither is sent as a part of the body."""
    body = {"custom_id": "mine", "url": "/v1/embeddings", "model": "bge-m3", "input": "Hi"}
    assert run(write(tmp_path / "in", body), "-o", tmp_path / "out") == 0

    assert set(results(tmp_path / "out")) == {"mine"}
    assert [entry.endpoint for entry in server.ledger] == ["embeddings"]


@pytest.mark.usefixtures("server")
def test_images_are_asked_like_anything_else(tmp_path: Path) -> None:
    """One line for another endpoint refuses no file; what the server does not have is
    that line's own failure.
    """
    requests = write(
        tmp_path / "in",
        {"custom_id": "a", "url": "/v1/embeddings", "body": TOKENS},
        {
            "custom_id": "b",
            "url": "/v1/images/generations",
            "body": {"model": "gpt-image-1", "prompt": "A cat"},
        },
        {"custom_id": "c", "url": "/v1/rerank", "body": {"model": "bge", "query": "cat"}},
    )
    status = run(requests, "-o", tmp_path / "out")
    found = results(tmp_path / "out")

    assert status == 1
    assert {name: line["response"]["status_code"] for name, line in found.items()} == {
        "a": 200,
        "b": 200,
        "c": 404,
    }
    assert all(line["id"].startswith("batch_req_") for line in found.values())


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (("--endpoint", "embedings"), "/v1/embeddings is"),
        (("--endpoint", "/v1/chat/completion"), "/v1/chat/completions is"),
        (("--endpoint", "anything"), "is no endpoint"),
    ],
)
def test_a_misspelled_endpoint_is_refused_by_its_right_name(
    server: FakeOpenAI,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    option: tuple[str, str],
    expected: str,
) -> None:
    """Before the file is read."""
    assert run(write(tmp_path / "in", TOKENS), "-o", tmp_path / "out", *option) == 2

    assert expected in capfd.readouterr().err
    assert len(server.ledger) == 0


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--rmp", "--rpm"),
        ("--tmp", "--tpm"),
        ("--concurency", "--concurrency"),
        ("--retry_failed", "--retry-failed"),
        ("--dryrun", "--dry-run"),
        ("--prioritty", "--priority"),
    ],
)
def test_a_misspelled_option_is_refused_by_its_right_name(
    capfd: pytest.CaptureFixture[str], option: str, meant: str
) -> None:
    """Not taken for another, nor left out."""
    with pytest.raises(SystemExit) as left:
        run("in", "-o", "out", option, "5")

    assert left.value.code == 2
    assert f"ratelimit run: unrecognized arguments: {option} 5; did you mean {meant}?" in (
        capfd.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rum", "in"], "run"),
        (["run", "in", "--priority", "normall"], "normal"),
        (["demo", "--varient", "P"], "--variant"),
    ],
)
def test_a_misspelled_command_or_choice_as_well(
    capfd: pytest.CaptureFixture[str], arguments: list[str], meant: str
) -> None:
    """Whatever has a list of names."""
    with pytest.raises(SystemExit):
        main(arguments)

    assert f"did you mean {meant}?" in capfd.readouterr().err


def test_an_option_is_not_abbreviated(capfd: pytest.CaptureFixture[str]) -> None:
    """`--price 5` must not become `--price-in` the day there is one price less."""
    with pytest.raises(SystemExit):
        run("in", "--conc", "5")

    assert "unrecognized" in capfd.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        *("10x", "-5", "m", "1e9999h", "1.2.3s", "1..2", "5.s", "1,2s", "1k", "٣s", "9" * 400),
        *("1000000000000001s", "1000000000000000d", "999999999999h", "1 000s", "1m30s", ""),
    ],
)
def test_a_patience_is_a_time(capfd: pytest.CaptureFixture[str], text: str) -> None:
    """What is none, and what is longer than any run, is refused in a sentence that
    shows one.
    """
    with pytest.raises(SystemExit):
        run("in", f"--patience={text}")
    said = capfd.readouterr().err

    assert "expected a time such as 90s, 10m or 2h" in said
    assert "30k" not in said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90", 90), ("90s", 90), (".5h", 1_800), ("1,000 sec", 1_000), ("1_000.5S", 1_000.5)),
        *(("0", 0), (" 2 hours ", 7_200), ("1000000000000000", 1e15)),
    ],
)
def test_a_time_is_read_in_the_forms_of_an_amount(text: str, seconds: float) -> None:
    """With the names of periods that limits have."""
    assert read_seconds(text) == seconds


def test_nothing_to_do_is_said_in_a_sentence(
    server: FakeOpenAI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file without requests, one that is done, and one with nothing to repeat: no
    table of zeros, but figures where they are asked for.
    """
    empty, requests = write(tmp_path / "empty"), write(tmp_path / "in", TOKENS)
    output, figures = tmp_path / "out", tmp_path / "figures"
    assert run(empty, "-o", tmp_path / "none", "--json", figures) == 0
    assert "holds no requests" in capfd.readouterr().out
    assert json.loads(figures.read_text())["answered"] == 0

    assert run(requests, "-o", output) == 0
    capfd.readouterr()
    assert run(requests, "-o", output) == 0
    shown = capfd.readouterr().out
    assert shown == f"Every request of {requests} has its result in {output}; nothing was sent.\n"

    assert run(requests, "-o", output, "--retry-failed") == 0
    assert "has failed" in capfd.readouterr().out
    assert len(server.ledger) == 1


@pytest.mark.usefixtures("server")
def test_all_reasons_are_told_or_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The ten most frequent are spelled out, and none of the others is hidden."""
    good = {"custom_id": "good", "url": "/v1/embeddings", "body": TOKENS}
    bad = (
        {"custom_id": f"b-{n}", "url": f"/v1/none{n}", "body": {"model": f"m-{n}"}}
        for n in range(SHOWN_REASONS + 3)
    )
    assert run(write(tmp_path / "in", good, *bad), "-o", tmp_path / "out") == 1

    shown = capfd.readouterr().out
    assert shown.count("failed by HTTP 404") == SHOWN_REASONS
    assert f"3 failed for 3 other reasons; {tmp_path / 'out'} has the reason of each" in shown


def test_an_error_inside_a_success_is_sent_again_when_asked(
    server: FakeOpenAI, tmp_path: Path
) -> None:
    """It is a failure in the file of results, whoever has written it there."""
    output = tmp_path / "out"
    requests = write(tmp_path / "in", {"custom_id": "a", "url": "/v1/embeddings", "body": TOKENS})
    body = {"error": {"code": "server_error", "message": "no"}}
    line = {"id": "batch_req_1", "custom_id": "a", "error": None}
    write(output, line | {"response": {"status_code": 200, "request_id": "", "body": body}})
    assert run(requests, "-o", output) == 1
    assert len(server.ledger) == 0

    assert run(requests, "-o", output, "--retry-failed") == 0
    assert len(server.ledger) == 1
    assert results(output)["a"]["response"]["body"]["data"]


def test_a_second_run_by_another_name_is_kept_out(server: FakeOpenAI, tmp_path: Path) -> None:
    """Two runs on one output, one of them through a link, would send
    everything twice.
    """
    from ratelimit.batch.journal import Journal

    output, link, hard = tmp_path / "out", tmp_path / "link", tmp_path / "hard"
    requests = write(tmp_path / "in", TOKENS)
    with Journal(output):
        link.symlink_to(output)
        hard.hardlink_to(output)
        assert run(requests, "-o", link) == 2
        assert run(requests, "-o", hard) == 2

    assert len(server.ledger) == 0
