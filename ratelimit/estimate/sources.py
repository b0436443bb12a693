"""Where the file of a vocabulary can come from.

Owns the sources: tiktoken's cache, the packages that carry the file, and tiktoken's
download. A package comes before the download since it is the same file, byte for byte,
without the network. Must never check or keep what a source returns, and never write to
disk (tiktoken does, in its own cache, after its own download).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import tiktoken.load

Source: TypeAlias = Callable[[str, str], bytes]
"""Takes the address of tiktoken's file and the sha256 that it must have.

Returns its bytes, which the caller checks; raises when it has none.
"""


def cache_folder(environ: Mapping[str, str]) -> Path | None:
    """Return where tiktoken keeps what it has downloaded, None where it keeps nothing.

    Source: tiktoken.load.
    """
    folder = environ.get("TIKTOKEN_CACHE_DIR", environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        return Path(tempfile.gettempdir(), "data-gym-cache")
    return Path(folder) if folder else None


def from_cache(url: str, _sha256: str) -> bytes:
    """Read tiktoken's cached file."""
    folder = cache_folder(os.environ)
    if folder is None:
        raise FileNotFoundError("switched off")

    name = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    return (folder / name).read_bytes()


def from_quicktok(url: str, _sha256: str) -> bytes:
    """Rebuild tiktoken's file from quicktok's.

    That holds a count, then per token its length, its bytes and its rank.
    """
    name = url.rsplit("/", 1)[-1].removesuffix("_base.tiktoken")
    data = (_data_folder("quicktok") / f"{name}.vocab").read_bytes()
    (count,) = struct.unpack_from("<I", data)
    lines, at = [], 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        (rank,) = struct.unpack_from("<I", data, at + 2 + length)
        lines.append(b"%s %d\n" % (base64.b64encode(data[at + 2 : at + 2 + length]), rank))
        at += 2 + length + 4

    return b"".join(lines)


def from_bpe_openai(url: str, _sha256: str) -> bytes:
    """Unpack the copy of tiktoken's file that bpe-openai carries."""
    packed = _data_folder("bpe_openai") / f"{url.rsplit('/', 1)[-1]}.gz"
    return gzip.decompress(packed.read_bytes())


def download(url: str, sha256: str) -> bytes:
    """Let tiktoken download its file and keep it in its cache.

    Waits as long as the network does.
    """
    try:
        return tiktoken.load.read_file_cached(url, sha256)
    except OSError as error:
        if error.filename is None:
            raise

        # The cache folder failed, not the network.
        return tiktoken.load.read_file(url)


def _data_folder(package: str) -> Path:
    """Find where an installed package keeps its data, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("not installed")

    return Path(spec.origin).parent / "data"


LOCAL: Final[tuple[Source, ...]] = (from_cache, from_quicktok, from_bpe_openai)
"""The sources that answer at once, in the order of preference."""
