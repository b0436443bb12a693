"""What error messages tell users to type works where it is typed."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from ratelimit import __version__, installation
from ratelimit.installation import DISTRIBUTION, install_command

ROOT = Path(__file__).parents[1]
REQUIRES = [
    "anyio>=4.11",
    'imagesize>=1.4; extra == "images"',
    "ratelimit-openai[images,testing]; extra == 'cli'",
    'rich>=13; extra == "cli"',
    "httpx2[http2]>=2.0 ; extra == 'testing'",
    "token-throttle>=14; (python_version >= '3.12') and extra == 'peers'",
]


class Installed:
    """What `importlib.metadata` knows of a package."""

    def __init__(self, origin: dict[str, Any] | None) -> None:
        self.requires = REQUIRES
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._origin is None else json.dumps(self._origin)


def command(monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None) -> list[str]:
    """The words behind "install" for the extra `cli`, as a shell reads them."""
    monkeypatch.setattr(metadata, "distribution", lambda _: Installed(origin))
    words = shlex.split(install_command("cli"))
    return words[words.index("install") + 1 :]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with a space in its name, as of a clone."""
    folder = tmp_path / "my clone"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    return folder


def test_from_an_index_the_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installers note no origin then."""
    assert command(monkeypatch, None) == [f"{DISTRIBUTION}[cli]"]


@pytest.mark.parametrize("editable", [True, False])
def test_from_a_clone_its_folder_is_named(
    monkeypatch: pytest.MonkeyPatch, clone: Path, editable: bool
) -> None:
    """No index knows the package; an editable installation stays one."""
    origin = {"url": clone.as_uri(), "dir_info": {"editable": True} if editable else {}}
    words = command(monkeypatch, origin)

    assert words == (["--editable"] if editable else []) + [f"{clone}[cli]"]


@pytest.mark.parametrize(
    "origin",
    [
        {"url": "file:///nowhere/x.whl", "archive_info": {}},
        {"url": "file:///nowhere/clone", "dir_info": {}},
        {"url": "https://host/repository.git", "vcs_info": {"vcs": "git"}},
    ],
    ids=["wheel", "folder that is gone", "repository"],
)
def test_else_the_packages_of_the_extra_are_named(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any]
) -> None:
    """The wheel, or the folder, may be gone; extras of the package itself
    are resolved.
    """
    assert command(monkeypatch, origin) == ["httpx2[http2]>=2.0", "imagesize>=1.4", "rich>=13"]


def test_without_a_note_of_the_installer_the_source_tree_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tree that is only on the path has no metadata."""

    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    monkeypatch.setattr(metadata, "version", missing)

    assert shlex.split(install_command("cli"))[-1] == f"{ROOT}[cli]"
    assert installation.version() == "unknown"


def test_the_installer_is_that_of_this_interpreter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A `pip` of another environment would install where nothing looks."""
    monkeypatch.setattr("shutil.which", lambda _: str(tmp_path / "pip"))
    assert shlex.split(install_command("cli"))[:4] == [sys.executable, "-m", "pip", "install"]

    monkeypatch.setattr("shutil.which", lambda _: str(Path(sys.executable).parent / "pip"))
    assert shlex.split(install_command("cli"))[:2] == ["pip", "install"]


WITHOUT_UVICORN = """
import sys

sys.modules["uvicorn"] = None
from ratelimit.installation import install_command
from ratelimit.testing import FakeOpenAI

try:
    FakeOpenAI().serve()
except ImportError as error:
    assert str(error).endswith(f"needs uvicorn: {install_command('testing')}"), error
else:
    raise SystemExit("it was served")
"""


def test_the_fake_server_recommends_what_works() -> None:
    """Whatever names an extra asks how the package was installed."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_UVICORN], capture_output=True, text=True, check=False
    )  # ourselves

    assert done.returncode == 0, done.stderr


def test_the_demo_needs_no_test_tools() -> None:
    """`make demo` installs the extra `cli` alone, and says what it does."""
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "'.[cli]'" in made
    assert "'.[dev]'" not in made
    assert made.index("Installing") < made.index("pip install")


def test_the_archives_hold_what_they_need() -> None:
    """The console script is in the wheel; the Makefile and the README's picture are in
    the sources.
    """
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]
    module = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        "ratelimit"
    ].partition(":")[0]

    assert {"ratelimit", f"{module}.py"} <= set(targets["wheel"]["only-include"])
    assert {"/Makefile", "/docs", f"/{module}.py"} <= set(targets["sdist"]["include"])
    for name in targets["sdist"]["include"]:
        assert (ROOT / name.lstrip("/")).exists(), name


INTERRUPTED = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
import _ratelimit_command
sys.exit(_ratelimit_command.main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("module", ["ratelimit", "ratelimit.limiter", "anyio", "tiktoken"])
def test_ctrl_c_while_the_package_is_loaded_is_silent(module: str) -> None:
    """The first second of the console script ends like any other: with 130."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module], capture_output=True, text=True, check=False
    )  # ourselves

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_background_job_goes_on_ignoring_ctrl_c() -> None:
    """`ratelimit run ... &` in a script must not end by the Ctrl-C of its terminal."""
    program = INTERRUPTED.replace("signal.default_int_handler)", "signal.SIG_IGN)")
    done = subprocess.run(
        [sys.executable, "-c", program, "ratelimit"], capture_output=True, text=True, check=False
    )  # ourselves

    assert done.returncode == 2  # argparse: there is no such command
    assert signal.SIGINT.name not in done.stderr


def test_the_package_runs_as_a_module() -> None:
    """Where the script is not on the path, `python -m ratelimit` is the command."""
    done = subprocess.run(
        [sys.executable, "-m", "ratelimit", "--version"], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip().endswith(__version__)
