"""Where tiktoken's vocabularies come from.

Owns the search for a vocabulary and its loading. Must never hold a vocabulary, its checksum or its pattern: those are
tiktoken's, whose own constructors are run here with another loader. Nothing is loaded at import.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import os
import struct
import tempfile
import threading
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import tiktoken

_lock = threading.Lock()
_loaded: dict[str, tiktoken.Encoding] = {}


def load(encoding: str) -> tiktoken.Encoding | None:
    """The encoding named `encoding` ("o200k_base", ...), None while its vocabulary is not on this machine."""
    if encoding not in _loaded:
        with _lock:
            if encoding not in _loaded:
                found = _construct(encoding, _local)
                if found is None:
                    return None
                _loaded[encoding] = found
    return _loaded[encoding]


def _construct(encoding: str, loader: Callable[..., dict[bytes, int]]) -> tiktoken.Encoding | None:
    import tiktoken
    from tiktoken_ext import openai_public

    constructor = getattr(openai_public, encoding, None)
    if constructor is None:
        return None
    namespace = {**vars(openai_public), "load_tiktoken_bpe": loader}
    try:
        return tiktoken.Encoding(**FunctionType(constructor.__code__, namespace)())
    except LookupError:
        return None


def _local(url: str, expected_hash: str) -> dict[bytes, int]:
    for data in _candidates(url):
        if hashlib.sha256(data).hexdigest() == expected_hash:
            return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines())}
    raise LookupError(url)


def _candidates(url: str) -> Iterator[bytes]:
    cache = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = Path(cache) if cache else Path(tempfile.gettempdir(), "data-gym-cache")
    cached = folder / hashlib.sha1(url.encode()).hexdigest()  # noqa: S324 - tiktoken's file name, not a signature
    if cached.is_file():
        yield cached.read_bytes()
    name = url.rsplit("/", 1)[-1].removesuffix(".tiktoken")
    if (folder := _package("quicktok")) and (file := folder / f"{name.removesuffix('_base')}.vocab").is_file():
        yield _from_quicktok(file.read_bytes())
    if (folder := _package("bpe_openai")) and (file := folder / f"{name}.tiktoken.gz").is_file():
        yield gzip.decompress(file.read_bytes())


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(cast("str", spec.origin)).parent / "data" if spec and spec.origin else None


def _from_quicktok(data: bytes) -> bytes:
    (count,) = struct.unpack_from("<I", data)
    lines, at = [], 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        token = data[at + 2 : at + 2 + length]
        (rank,) = struct.unpack_from("<I", data, at + 2 + length)
        lines.append(base64.b64encode(token) + b" %d\n" % rank)
        at += 6 + length
    return b"".join(lines)
