"""The sources of a vocabulary, in a process that has nothing and no internet."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import tiktoken
import tiktoken.load
import tiktoken.registry

from ratelimit.estimate.sources import cache_folder, download


def test_importing_loads_nothing() -> None:
    """Importing the package costs no vocabulary: neither a package that carries one nor
    a loaded encoding.
    """
    program = (
        "import sys; from ratelimit.estimate import tokenizer; "
        "sys.exit('quicktok' in sys.modules or tokenizer.is_ready('o200k_base')"
        " or tokenizer.is_counted('a', 'o200k_base'))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({}, Path(tempfile.gettempdir(), "data-gym-cache")),
        ({"DATA_GYM_CACHE_DIR": "/gym"}, Path("/gym")),
        ({"TIKTOKEN_CACHE_DIR": "/cache", "DATA_GYM_CACHE_DIR": "/gym"}, Path("/cache")),
        ({"TIKTOKEN_CACHE_DIR": ""}, None),
    ],
)
def test_the_cache_is_looked_for_where_tiktoken_keeps_it(
    environ: dict[str, str], folder: Path | None
) -> None:
    """The folder follows tiktoken's variables, its default, and its way of switching
    the cache off.
    """
    assert cache_folder(environ) == folder


def test_an_unusable_cache_folder_does_not_cost_the_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file is fetched all the same where tiktoken, after its download, cannot write
    the folder that is set for it.
    """

    def unwritable(_url: str, _sha256: str) -> bytes:
        raise PermissionError(13, "Permission denied", "/read-only")

    monkeypatch.setattr(tiktoken.load, "read_file_cached", unwritable)
    monkeypatch.setattr(tiktoken.load, "read_file", lambda url: b"fetched " + url.encode())

    assert download("address", "hash") == b"fetched address"


def test_a_network_error_is_not_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a file's error leads to a second attempt; the network's ends it."""

    def unreachable(_url: str, _sha256: str) -> bytes:
        raise OSError("no route to host")

    def second(_url: str) -> bytes:
        raise AssertionError("asked the network twice")

    monkeypatch.setattr(tiktoken.load, "read_file_cached", unreachable)
    monkeypatch.setattr(tiktoken.load, "read_file", second)

    with pytest.raises(OSError, match="no route"):
        download("address", "hash")


PROGRAM = """
import sys, warnings
sys.modules["quicktok"] = None  # as if it were not installed
sys.modules["bpe_openai"] = None
from ratelimit.estimate import tokenizer
warnings.simplefilter("always")
print(tokenizer.count("four letters a token", "o200k_base"), tokenizer.inexact_counts() > 0)
"""


def without_vocabulary(
    tmp_path: Path, prepare: Callable[[dict[str, str]], None]
) -> subprocess.CompletedProcess[str]:
    """Count a text in a new process that has neither a cache nor a package nor, after
    `prepare`, the internet.
    """
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith(("_cache_dir", "_proxy"))
    }
    environ["TMPDIR"] = str(tmp_path)
    prepare(environ)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_a_silent_network_does_not_hang_a_program(tmp_path: Path) -> None:
    """A proxy that accepts and never answers, tiktoken's real download against it: the
    size serves, with one warning.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = without_vocabulary(tmp_path, lambda environ: environ.update(HTTPS_PROXY=address))

    assert done.stdout.split() == ["7", "True"]
    assert done.stderr.count("EstimateWarning") == 1
    assert "download: under way" in done.stderr


def test_a_refusing_network_is_named(tmp_path: Path) -> None:
    """A proxy that refuses: the size serves, and the warning says so."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = without_vocabulary(tmp_path, lambda environ: environ.update(HTTPS_PROXY=address))

    assert done.stdout.split() == ["7", "True"]
    assert done.stderr.count("EstimateWarning") == 1
    assert "download: HTTPSConnectionPool" in done.stderr
