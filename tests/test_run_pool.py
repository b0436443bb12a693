"""`ratelimit run --pool`: a file of requests over several members.

Owns files of pools. One test kills a process; the rest runs the command here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit.testing import FakeOpenAI
from tests.run_files import results, run, write

KEY_A, KEY_B = "sk-canary-aaaa0c52a9e84b36", "sk-canary-bbbb0c52a9e84b36"
START = "import sys; from ratelimit.cli import main; sys.exit(main())"


class Two:
    """Two servers, each with a key of its own, and a pool's file that names both."""

    def __init__(self, folder: Path, **options: Any) -> None:
        settings = {"rpm": 60_000, "tpm": 60_000_000, "latency": 0.01, "output": 20, **options}
        self.servers = [
            FakeOpenAI(keys={key: f"org-{key[10:14]}"}, **settings) for key in (KEY_A, KEY_B)
        ]
        self.path = folder / "pool.toml"

    def write(self, bases: list[str], *more: str) -> Path:
        """Write the file."""
        members = [
            f'[[member]]\nname = "{name}"\nkey = "POOL_KEY_{name.upper()}"\nbase_url = "{base}"\n'
            f"rpm = 60_000\n{extra}\n"
            for name, base, extra in zip("ab", bases, [*more, "", ""], strict=False)
        ]
        self.path.write_text("\n".join(members))
        return self.path

    @property
    def answered(self) -> list[int]:
        """How many calls each server has answered."""
        return [sum(entry.status == 200 for entry in server.ledger) for server in self.servers]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put both keys into the environment, and no other one."""
    monkeypatch.setenv("POOL_KEY_A", KEY_A)
    monkeypatch.setenv("POOL_KEY_B", KEY_B)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Two]:
    """Serve both."""
    request.getfixturevalue("keys")
    found = Two(tmp_path)
    with found.servers[0].serve() as one, found.servers[1].serve() as other:
        found.write([one, other])
        yield found


def test_both_members_answer(two: Two, tmp_path: Path) -> None:
    """Each request is answered once, by a member that can pay."""
    two.path.write_text(two.path.read_text().replace("60_000", "40"))
    output = tmp_path / "out"

    status = run(write(tmp_path / "in", 60), "-o", output, "--pool", two.path)

    assert status == 0
    assert len(results(output)) == 60
    assert sum(two.answered) == 60
    assert min(two.answered) > 10


def test_a_refused_key_costs_nothing_but_its_member(two: Two, tmp_path: Path) -> None:
    """One wrong key of two: all is answered by the other."""
    os.environ["POOL_KEY_A"] = "sk-canary-wrong0000000000"
    output = tmp_path / "out"

    status = run(write(tmp_path / "in", 30), "-o", output, "--pool", two.path)

    assert status == 0
    assert two.answered == [0, 30]


def test_all_keys_refused_ends_in_words(
    two: Two, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence says what to do, and shows no key."""
    os.environ["POOL_KEY_A"] = os.environ["POOL_KEY_B"] = "sk-canary-wrong0000000000"

    status = run(write(tmp_path / "in", 5), "-o", tmp_path / "out", "--pool", two.path)

    said = capsys.readouterr().err
    assert status == 1
    assert "every member of the pool refuses the API key; set the variables of the keys" in said
    assert "canary" not in said


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no members"),
        ("affinity = 1", "has no members"),
        ("moves = [", "is no TOML"),
        ('[[members]]\nkey = "POOL_KEY_A"', "did you mean member?"),
        ('[[member]]\nkey = "POOL_KEY_A"\nrpn = 5', "member 1: there is no key 'rpn'"),
        ('[[member]]\nname = "x"', r"member 1 \(x\): key is the name of an environment variable"),
        ('[[member]]\nkey = "sk-canary-in-the-file"', "not the key itself"),
        ('[[member]]\nkey = "NOT_SET_ANYWHERE"', "is not set; set it to the key"),
        ('[[member]]\nkey = "POOL_KEY_A"\nrpm = -5', "rpm"),
        ('[[member]]\nkey = "POOL_KEY_A"\nbase_url = "ftp://x"', "should begin with http"),
        ('[[member]]\nkey = "POOL_KEY_A"\nazure_endpoint = "https://x"', "api_version are texts"),
        ('[[member]]\nkey = "POOL_KEY_A"\nmodels = 5', "models="),
        ('[[member]]\nkey = "POOL_KEY_A"\ndrop = "seed"', "drop is a list"),
        (
            '[[member]]\nkey = "POOL_KEY_A"\n[[member]]\nkey = "POOL_KEY_B"',
            "two members are called 'api.openai.com'",
        ),
        ('moves = -1\n[[member]]\nkey = "POOL_KEY_A"', "moves="),
        ('[[member]]\nkey = "POOL_KEY_A"\nquota = "q"', "has no limiter"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    """Nothing is sent, the exit status is 2, and no key is shown."""
    path = tmp_path / "pool.toml"
    path.write_text(text)

    status = run(write(tmp_path / "in", 1), "-o", tmp_path / "out", "--pool", path)

    said = capsys.readouterr().err
    assert status == 2
    assert re.search(sentence, said), said
    assert "canary" not in said


@pytest.mark.parametrize("option", [["--rpm", "5"], ["--base-url", "http://x"], ["--live"]])
def test_options_of_one_limiter_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    """What stands in the pool's file cannot be given beside it."""
    path = tmp_path / "pool.toml"
    status = run(write(tmp_path / "in", 1), "-o", tmp_path / "out", "--pool", path, *option)

    assert status == 2
    assert option[0] in capsys.readouterr().err


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_killed_and_run_again_every_request_is_answered_once(two: Two, tmp_path: Path) -> None:
    """1,000 bodies over two members: the second run goes on after SIGKILL."""
    requests, output = tmp_path / "in", tmp_path / "out"
    rows = (
        {"custom_id": f"r-{n}", "url": "/v1/embeddings", "body": {"model": "m", "input": [1, n]}}
        for n in range(1_000)
    )
    requests.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-c", START, "run", str(requests), "-o", str(output)]
    command += ["--pool", str(two.path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 100
        while not output.exists() or output.read_bytes().count(b"\n") < 150:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    before = output.read_bytes().count(b"\n")

    again = subprocess.run(command, capture_output=True, timeout=200, check=False)

    assert again.returncode == 0, again.stderr
    assert 150 <= before < 1_000
    names = Counter(
        json.loads(line)["custom_id"] for line in output.read_text().splitlines() if line
    )
    assert len(names) == 1_000
    assert set(names.values()) == {1}
    assert min(two.answered) > 300
