"""Texts that a terminal cannot show, or would obey: names, paths and messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit.cli import main
from ratelimit.commands.streams import print_note

BODY = {"model": "text-embedding-3-small", "input": [1, 2, 3]}
SCRIPT = "import sys; from ratelimit.cli import main; sys.exit(main())"


def command(encoding: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a process of a locale."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(os.fsencode, map(str, arguments))],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("arguments", [["estimate"], ["estimate", "--each"], ["run", "--dry-run"]])
def test_any_name_is_shown_in_any_locale(
    tmp_path: Path, encoding: str, arguments: list[str]
) -> None:
    """What the encoding lacks is escaped; half of a surrogate pair has none."""
    path = tmp_path / "requests-ü-\udcff.jsonl"
    path.write_text(json.dumps({**BODY, "model": "Modell-日\ud800"}) + "\n")
    figures = tmp_path / "figures-ü.json"

    ended = command(encoding, *arguments, path, "--json", figures)

    assert ended.returncode == 0, ended.stderr
    assert b"\\ud800" in ended.stdout
    assert ("日".encode() if encoding == "utf-8" else b"\\u65e5") in ended.stdout
    assert ended.stderr == b""
    assert json.loads(figures.read_text(encoding="utf-8"))


@pytest.mark.parametrize("model", ["gpt[/b]", "gpt[red]", "gpt:smile:", "[link=x]gpt[/link]"])
def test_names_are_shown_as_they_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], model: str
) -> None:
    """A name that looks like a style or an emoji is a name."""
    path = tmp_path / "in"
    path.write_text(json.dumps({**BODY, "model": model}) + "\n")

    assert main(["estimate", str(path)]) == 0
    assert main(["run", str(path), "--dry-run"]) == 0
    assert capfd.readouterr().out.count(model) == 2


def test_no_name_commands_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An escape sequence out of a file could hide or forge what a screen shows."""
    path = tmp_path / "in\x1b[2J"
    path.write_text(json.dumps({**BODY, "model": "gpt\x1b[2J\r"}) + "\n")
    main(["estimate", str(path), "--each", "--rpm", "1", "--tpm", "1"])
    main(["run", str(path), "--dry-run"])
    main(["run", str(path) + ".missing", "--dry-run"])
    shown = capfd.readouterr()

    assert "gpt\\x1b[2J\\r" in shown.out
    assert "\\x1b[2J.missing" in shown.err
    assert "\x1b" not in shown.out + shown.err


def test_a_message_stays_on_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    """A server's text with line breaks cannot pass for a message of ours."""
    print_note("ratelimit run: it says a\r\nratelimit run: all is well")

    assert capfd.readouterr().err.count("\n") == 1
