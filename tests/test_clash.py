"""PyPI's older distribution `ratelimit` beside ours: both install one import package.

Owns copies of our package in which files of the other one lie, as pip leaves them. Must
never install anything.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import ratelimit
from ratelimit import LimiterWarning, _clash

THEIR_FACE = "from ratelimit.exception import RateLimitException\n"
THEIR_ERROR = "class RateLimitException(Exception): ...\n"
SENTENCE = "the distributions ratelimit and ratelimit-openai are installed into one folder"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder to import from, with a copy of our package."""
    source = Path(ratelimit.__file__).parent
    shutil.copytree(source, tmp_path / "ratelimit", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with this folder before all others on its path."""
    return subprocess.run(
        [sys.executable, "-B", *arguments],
        env={"PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_import_warns_once_where_ours_was_installed_last(installed: Path) -> None:
    """Our face works over their leftovers, and one sentence names the remedy."""
    (installed / "ratelimit" / "exception.py").write_text(THEIR_ERROR)

    done = run(installed, "-c", "from ratelimit import RateLimiter; import ratelimit.cli")

    assert done.returncode == 0
    assert done.stderr.count(SENTENCE) == 1
    assert "-m pip uninstall -y ratelimit`" in done.stderr
    assert "-m pip install --force-reinstall --no-deps '" in done.stderr
    assert "<string>:1: LimiterWarning" in done.stderr


def test_the_command_warns_where_theirs_was_installed_last(installed: Path) -> None:
    """Their face has replaced ours, so only the command is left to say why."""
    (installed / "ratelimit" / "exception.py").write_text(THEIR_ERROR)
    (installed / "ratelimit" / "__init__.py").write_text(THEIR_FACE)

    face = run(installed, "-c", "from ratelimit import RateLimiter")
    command = run(installed, "-c", "from ratelimit.cli import main; main(['--version'])")

    assert "ImportError: cannot import name 'RateLimiter'" in face.stderr
    assert command.returncode == 0
    assert command.stderr.count(SENTENCE) == 1


def test_import_is_silent_without_a_clash(installed: Path) -> None:
    """Our package alone imports without a word."""
    done = run(installed, "-W", "error", "-c", "import ratelimit, ratelimit.cli")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("direct_url", "source"),
    [
        (None, "ratelimit-openai"),
        ('{"url": "file:///clone", "dir_info": {}}', "file:///clone"),
        (
            '{"url": "https://host/it.git", "vcs_info": {"vcs": "git", "commit_id": "1f"}}',
            "git+https://host/it.git@1f",
        ),
    ],
    ids=["index", "folder", "repository"],
)
def test_the_remedy_installs_from_where_it_came(
    monkeypatch: pytest.MonkeyPatch, direct_url: str | None, source: str
) -> None:
    """A package installed from a folder or repository is installed from there again."""
    monkeypatch.setattr(metadata.PathDistribution, "read_text", lambda *_: direct_url)
    monkeypatch.setattr(_clash, "FOREIGN", Path(__file__))

    with pytest.warns(LimiterWarning) as given:
        _clash.warn_of_clash.__wrapped__()

    assert f"--no-deps '{source}'`" in str(given[0].message)


def test_the_version_is_that_of_the_distribution() -> None:
    """`ratelimit.__version__` is the distribution's; other unknown names are errors."""
    assert ratelimit.__version__ == metadata.version("ratelimit-openai")
    with pytest.raises(AttributeError, match="no attribute 'version'"):
        _ = ratelimit.version  # type: ignore[attr-defined]
