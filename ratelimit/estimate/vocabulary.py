"""Where tiktoken's vocabularies come from, on a machine that has never seen one and has
no internet.

Owns the search, the loading, the one warning when a vocabulary is missing, and the
choice of a stand-in. Must never hold a vocabulary, a checksum, an address or a pattern:
those are tiktoken's, whose own constructors run here, only with another loader in the
place of its own. Must never write to disk (tiktoken does, in its own cache, after its
own download), and never load anything at import.

The search, cheapest and surest first:

1. an encoding that somebody in this process has loaded through tiktoken already,
2. tiktoken's cache folder,
3. an installed package that carries the vocabulary: quicktok-v1 or bpe-openai, both
   o200k and cl100k,
4. tiktoken's download, on a thread of its own. The caller who starts it waits
   `patience` seconds for it and nobody else waits at all, because a firewall that
   swallows packets would hang a call for minutes. It is tried once a process.

A package comes before the download since it is the same file, byte for byte, without
the network. Whatever the source, tiktoken's own sha256 must match. While all four fail
the caller gets a stand-in, the nearest encoding that is here, or nothing, and one
warning that says what was tried.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib
import importlib.util
import logging
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import TypeAlias

import tiktoken
import tiktoken.load
import tiktoken.registry

from ratelimit.errors import EstimateWarning, caution

# The address of tiktoken's file and the sha256 it must have -> its bytes; raises when
# it has none. The caller checks the sha256.
Source: TypeAlias = Callable[[str, str], bytes]

# seconds; the file has 3.6 MB, and a call that is about to wait for a model can spare
# this once
PATIENCE = 2.0

# The same ranks and the same pattern under another name: only their special tokens
# differ, and these count as text here.
_SAME = {"o200k_harmony": "o200k_base", "p50k_edit": "p50k_base", "gpt2": "r50k_base"}
_NEAREST = {
    "o200k_base": ("cl100k_base", "p50k_base", "r50k_base"),
    "cl100k_base": ("o200k_base", "p50k_base", "r50k_base"),
    "p50k_base": ("r50k_base", "cl100k_base", "o200k_base"),
    "r50k_base": ("p50k_base", "cl100k_base", "o200k_base"),
}
_logger = logging.getLogger(__name__)


def cache_folder(environ: Mapping[str, str]) -> Path | None:
    """Tell where tiktoken keeps what it has downloaded, None when it is told to keep
    nothing. Source: tiktoken.load.
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
    """Rebuild tiktoken's file from quicktok's: a count, then per token its length, its
    bytes and its rank.
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
    return gzip.decompress(
        (_data_folder("bpe_openai") / f"{url.rsplit('/', 1)[-1]}.gz").read_bytes()
    )


def download(url: str, sha256: str) -> bytes:
    """Have tiktoken download its file and keep it in its cache; waits as long as the
    network does.
    """
    try:
        return tiktoken.load.read_file_cached(url, sha256)
    except OSError as error:
        if error.filename is None:
            raise
        return tiktoken.load.read_file(url)  # it was the cache folder that failed, not the network


LOCAL: tuple[Source, ...] = (from_cache, from_quicktok, from_bpe_openai)


class Vocabularies:
    """The encodings of one process, each loaded at its first use. Safe to share between
    threads; nothing here raises.

    :param local: sources that answer at once, in the order of preference.
    :param remote: the source that may take for ever.
    :param patience: seconds that the caller who starts `remote` waits for it.
    """

    def __init__(
        self, local: Sequence[Source] = LOCAL, remote: Source = download, patience: float = PATIENCE
    ) -> None:
        self._local = local
        self._remote = remote
        self._patience = patience
        self._lock = threading.RLock()  # reentrant, as a finalizer may count
        self._loaded: dict[str, tiktoken.Encoding] = {}
        # what each source said, where all local ones were asked in vain
        self._failures: dict[str, list[str]] = {}
        self._asked: set[str] = set()  # the remote source, for these
        self._warned: set[str] = set()

    def load(self, encoding: str) -> tiktoken.Encoding | None:
        """Return the encoding of that name, None while its vocabulary is not here; the
        first call loads it (0.5 s).
        """
        name = base(encoding)
        found = self._loaded.get(name)
        if found is not None:
            return found
        arrival = None
        with self._lock:
            if self._here(name) is None and name not in self._asked:
                self._asked.add(name)
                arrival = self._send_for(name)
        if arrival is not None:
            arrival.wait(self._patience)
        return self._loaded.get(name)

    def forget_others(self) -> None:
        """After a fork: whoever held the lock, and whoever is downloading, belongs to
        the parent process.
        """
        self._lock = threading.RLock()
        self._asked &= self._loaded.keys()

    def ready(self, encoding: str) -> bool:
        """Whether `load` answers at once: the encoding is loaded, or was asked for
        everywhere.
        """
        name = base(encoding)
        return name in self._loaded or name in self._asked

    def stand_in(self, encoding: str) -> tiktoken.Encoding | None:
        """Return the nearest encoding that is on this machine, None when there is none;
        warns once an encoding.
        """
        name = base(encoding)
        with self._lock:
            found = next(filter(None, map(self._here, _NEAREST[name])), None)
            warned = name in self._warned
            self._warned.add(name)
            tried = "; ".join(self._failures.get(name, ()))
        if not warned:
            caution(
                f"tiktoken's vocabulary {name} is not here ({tried}), so texts are "
                + (
                    f"counted with {found.name}, the nearest one"
                    if found
                    else "estimated by their size"
                )
                + ". Let tiktoken download it once, or install ratelimit-openai[vocabulary], which brings o200k_base and"
                " cl100k_base.",
                EstimateWarning,
            )
        return found

    def _here(self, name: str) -> tiktoken.Encoding | None:
        """Look where an answer comes at once. The lock is held."""
        found = self._loaded.get(name) or tiktoken.registry.ENCODINGS.get(name)
        if found is None and name not in self._failures:
            failures = self._failures[name] = []
            for source in self._local:
                found = _construct(name, source, failures)
                if found is not None:
                    break
        if found is not None:
            self._loaded[name] = found
        return found

    def _send_for(self, name: str) -> threading.Event | None:
        """Start the remote source on a thread of its own; the event tells when it has
        answered. The lock is held.
        """
        arrival = threading.Event()
        failures = self._failures[name]

        def fetch() -> None:
            said: list[str] = []
            found = _construct(name, self._remote, said)
            with self._lock:
                failures[-1:] = said
                if found is not None:
                    self._loaded[name] = found
            arrival.set()

        try:
            threading.Thread(target=fetch, name=f"vocabulary {name}", daemon=True).start()
        except RuntimeError as error:  # no more threads, or the interpreter is shutting down
            failures.append(f"download: {error}")
            return None
        failures.append("download: under way")
        return arrival


def genuine(name: str, source: Source) -> bool:
    """Whether `source` has tiktoken's file of `name`, to the byte; nothing is built."""

    def load(url: str, expected_hash: str) -> dict[bytes, int]:
        _read(source, url, expected_hash)
        return {}

    try:
        _constructor(name, load)()
    except Exception as error:  # noqa: BLE001 # as below
        _logger.debug("%s is not in %s: %r", name, source.__name__, error)
        return False
    return True


def _construct(name: str, source: Source, failures: list[str]) -> tiktoken.Encoding | None:
    """Build the encoding from what `source` has; what goes wrong is added to
    `failures`.
    """

    def load(url: str, expected_hash: str) -> dict[bytes, int]:
        lines = _read(source, url, expected_hash).splitlines()
        return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}

    try:
        return tiktoken.Encoding(**_constructor(name, load)())
    except Exception as error:  # noqa: BLE001 # whatever is wrong with one source, the next may serve
        reason = getattr(error, "strerror", None) or str(error)[:80] or type(error).__name__
        failures.append(f"{source.__name__.removeprefix('from_')}: {reason}")
        return None


def _read(source: Source, url: str, sha256: str) -> bytes:
    data = source(url, sha256)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("not the file tiktoken expects")
    return data


def _constructor(name: str, load: Callable[[str, str], dict[bytes, int]]) -> FunctionType:
    """Take tiktoken's own constructor of `name`, which knows the address, checksum and
    pattern, and let it load by `load`.
    """
    constructor: FunctionType = getattr(importlib.import_module("tiktoken_ext.openai_public"), name)
    if "load_tiktoken_bpe" not in constructor.__code__.co_names:  # it would download here and now
        raise NotImplementedError("this tiktoken loads in a way unknown here")
    return FunctionType(
        constructor.__code__, {**constructor.__globals__, "load_tiktoken_bpe": load}
    )


def base(encoding: str) -> str:
    """The encoding that has the ranks of `encoding`; an unknown name is taken for the
    newest.
    """
    name = _SAME.get(encoding, encoding)
    return name if name in _NEAREST else "o200k_base"


def _data_folder(package: str) -> Path:
    """Find where an installed package keeps its data, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("not installed")
    return Path(spec.origin).parent / "data"
