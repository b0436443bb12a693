"""The search for tiktoken's vocabularies, also on a machine without the internet.

Owns the search, the loading, the one warning when a vocabulary is missing, and the
choice of a stand-in. Must never hold a vocabulary, a checksum, an address or a pattern:
those are tiktoken's. Must never load anything at import.

The search, cheapest and surest first:

1. an encoding that the program has loaded through tiktoken already,
2. the sources on this machine (`sources.py`), in their order,
3. tiktoken's download, on a thread of its own. The caller that starts it waits
   `patience` seconds for it and other callers do not wait at all, because a firewall
   that swallows packets would hang a call for minutes. It is tried once a process.

Whatever the source, tiktoken's own sha256 must match. While all of them fail the caller
gets a stand-in, the nearest encoding that is here, or nothing, and one warning that
lists what was tried.

Why tiktoken's constructors run here with another loader in the place of its own
(`_constructor`): `tiktoken.get_encoding` takes no file, cannot be kept from the network
(openai/tiktoken#317), and downloads without a timeout while it holds the lock that all
its callers need (openai/tiktoken#413). The constructors are the only place that has the
address, the checksum, the pattern and the special tokens of an encoding.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import logging
import threading
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Final

import tiktoken
import tiktoken.registry

from ratelimit.errors import EstimateWarning, caution
from ratelimit.estimate.sources import LOCAL, Source, download

PATIENCE: Final = 2.0
"""Seconds. The file has 3.6 MB, and a call can spare this once."""

_SAME: Final = {"o200k_harmony": "o200k_base", "p50k_edit": "p50k_base", "gpt2": "r50k_base"}
"""Encodings with the ranks and the pattern of another one.

Only their special tokens differ, and these count as text here.
"""

_NEAREST: Final = {
    "o200k_base": ("cl100k_base", "p50k_base", "r50k_base"),
    "cl100k_base": ("o200k_base", "p50k_base", "r50k_base"),
    "p50k_base": ("r50k_base", "cl100k_base", "o200k_base"),
    "r50k_base": ("p50k_base", "cl100k_base", "o200k_base"),
}
"""What stands in for an encoding, the nearest first."""

_PACKED: Final = frozenset({"o200k_base", "cl100k_base"})
"""Encodings that the extra "vocabulary" brings; of the older ones no package does."""

_logger = logging.getLogger(__name__)


class Vocabularies:
    """The encodings of one process, each loaded at its first use.

    Safe to share between threads; nothing here raises.

    :param local: sources that answer at once, in the order of preference.
    :param remote: the source that may never answer.
    :param patience: seconds that the caller that starts `remote` waits for it.
    """

    def __init__(
        self, local: Sequence[Source] = LOCAL, remote: Source = download, patience: float = PATIENCE
    ) -> None:
        self._local = local
        self._remote = remote
        self._patience = patience
        # Reentrant, as a finalizer may count.
        self._lock = threading.RLock()
        self._loaded: dict[str, tiktoken.Encoding] = {}
        # What each source answered, where all local ones were asked in vain.
        self._failures: dict[str, list[str]] = {}
        self._downloaded: set[str] = set()
        self._stood_in: set[str] = set()

    def load(self, encoding: str) -> tiktoken.Encoding | None:
        """Return the encoding of that name, None while its vocabulary is not here.

        The first call loads it, for 0.5 s.
        """
        name = base_encoding(encoding)
        found = self._loaded.get(name)
        if found is not None:
            return found

        arrival = None
        with self._lock:
            if self._find(name) is None and name not in self._downloaded:
                self._downloaded.add(name)
                arrival = self._start_download(name)

        if arrival is not None:
            arrival.wait(self._patience)

        return self._loaded.get(name)

    def reset_after_fork(self) -> None:
        """Replace the lock and allow another download.

        The thread that held the one or did the other belongs to the parent process.
        """
        self._lock = threading.RLock()
        self._downloaded &= self._loaded.keys()

    def is_ready(self, encoding: str) -> bool:
        """Whether `load` and `stand_in` return at once."""
        name = base_encoding(encoding)
        return name in self._loaded or name in self._stood_in

    def stand_in(self, encoding: str) -> tiktoken.Encoding | None:
        """Return the nearest encoding that is on this machine, None without one.

        The first call for an encoding warns.
        """
        name = base_encoding(encoding)
        with self._lock:
            found = next(filter(None, map(self._find, _NEAREST[name])), None)
            warned = name in self._stood_in
            self._stood_in.add(name)
            tried = "; ".join(self._failures.get(name, ()))

        if not warned:
            from ratelimit.installation import install_command  # noqa: PLC0415  # rare, and slow

            instead = f"counted with {found.name}, the nearest one" if found else "sized in bytes"
            packed = f", or run `{install_command('vocabulary')}`, which brings it"
            caution(
                f"tiktoken's vocabulary {name} is not here ({tried}), so texts are {instead}."
                f" Let tiktoken download it once{packed if name in _PACKED else ''}.",
                EstimateWarning,
            )

        return found

    def _find(self, name: str) -> tiktoken.Encoding | None:
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

    def _start_download(self, name: str) -> threading.Event | None:
        """Ask the remote source on a thread of its own. The lock is held.

        Return an event that is set when it has answered, None without a thread.
        """
        arrival = threading.Event()
        failures = self._failures[name]

        def fetch() -> None:
            answers: list[str] = []
            found = _construct(name, self._remote, answers)
            with self._lock:
                failures[-1:] = answers
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


def is_genuine(name: str, source: Source) -> bool:
    """Whether `source` has tiktoken's file of `name`, to the byte; nothing is built."""

    def load(url: str, expected_hash: str) -> dict[bytes, int]:
        _read(source, url, expected_hash)
        return {}

    try:
        _constructor(name, load)()
    except Exception as error:  # noqa: BLE001  # whatever is wrong, the source does not serve
        _logger.debug("%s is not in %s: %r", name, source.__name__, error)
        return False

    return True


def _construct(name: str, source: Source, failures: list[str]) -> tiktoken.Encoding | None:
    """Build the encoding from what `source` has; add what goes wrong to `failures`."""

    def load(url: str, expected_hash: str) -> dict[bytes, int]:
        lines = _read(source, url, expected_hash).splitlines()
        return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}

    try:
        return tiktoken.Encoding(**_constructor(name, load)())
    except Exception as error:  # noqa: BLE001  # whatever is wrong, the next source may serve
        reason = getattr(error, "strerror", None) or str(error)[:80] or type(error).__name__
        failures.append(f"{source.__name__.removeprefix('from_')}: {reason}")
        return None


def _read(source: Source, url: str, sha256: str) -> bytes:
    data = source(url, sha256)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("not the file tiktoken expects")

    return data


def _constructor(name: str, load: Callable[[str, str], dict[bytes, int]]) -> FunctionType:
    """Take tiktoken's own constructor of `name`, and let it load by `load`.

    The head of this file gives the reason.
    """
    constructor: FunctionType = getattr(importlib.import_module("tiktoken_ext.openai_public"), name)
    # A constructor that loads otherwise would download here and now.
    if "load_tiktoken_bpe" not in constructor.__code__.co_names:
        raise NotImplementedError("this tiktoken loads in a way unknown here")

    globals_ = {**constructor.__globals__, "load_tiktoken_bpe": load}
    return FunctionType(constructor.__code__, globals_)


def base_encoding(encoding: str) -> str:
    """Return the encoding that has the ranks of `encoding`.

    An unknown name is taken for the newest.
    """
    name = _SAME.get(encoding, encoding)
    return name if name in _NEAREST else "o200k_base"
