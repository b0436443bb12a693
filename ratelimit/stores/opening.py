"""Which store keeps the buckets of a family, by what a user has written.

Owns the forms of ``store=``. Must never take from a store.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ratelimit.errors import InvalidArgument
from ratelimit.limits import Limits
from ratelimit.stores.alone import Alone, OnStoreError
from ratelimit.stores.memory import MemoryStore

OpenStore = Callable[[str, Limits, float, float], MemoryStore]
"""Makes the store of a family: its name, its limits, now and the slack in seconds."""

LONGEST_NAME: Final = 150
"""Characters of a family's name in the name of its file."""


def opener(store: str | None, on_store_error: OnStoreError, epoch: str) -> OpenStore:
    """Return what makes the stores of a limiter.

    :param store: "file:" and a folder; None: this process's memory.
    :param epoch: names the clock that moments come from.

    Raises `InvalidArgument` on what cannot be used.
    """
    Alone(on_store_error)  # refuses what is no policy
    if store is None:
        return lambda _, limits, now, slack: MemoryStore(limits, now, slack)

    folder = folder_of(store)
    # filelock is of the extra `file`, and this part of Unix alone.
    from ratelimit.stores.file import FileStore  # noqa: PLC0415
    from ratelimit.stores.quota_file import QuotaFile  # noqa: PLC0415

    def make(name: str, limits: Limits, now: float, slack: float) -> MemoryStore:
        path = folder / _file_name(name)
        return FileStore(lambda: QuotaFile(path), epoch, Alone(on_store_error), limits, now, slack)

    return make


def folder_of(store: object) -> Path:
    """Return the folder that ``store=`` names."""
    scheme, _, rest = store.partition(":") if isinstance(store, str) else ("", "", "")
    if scheme != "file" or not rest.removeprefix("//"):
        raise InvalidArgument(
            'store= is "file:" and a folder, such as "file:~/.cache/ratelimit/openai", which '
            f"processes of one machine share; not {_shown(store)}"
        )
    if not hasattr(os, "pread"):
        raise InvalidArgument(
            "store= shares a quota through a file on Linux, macOS and other Unix systems only; "
            "leave it out, and give each process its share of the limits"
        )
    if find_spec("filelock") is None:
        raise InvalidArgument(
            "store= needs the package filelock: pip install 'ratelimit-openai[file]'"
        )
    folder = Path(rest.removeprefix("//")).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise InvalidArgument(f"store= names a folder, and {folder} is none; name another one")
    return folder


def _file_name(name: str) -> str:
    """Return the name of a family's file, which no other family has."""
    quoted = quote(name, safe=" ,=+@")
    if len(quoted) > LONGEST_NAME:
        quoted = f"{quoted[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{quoted}.quota"


def _shown(store: object) -> str:
    """Return what a message shows: of an address no more than its scheme."""
    if not isinstance(store, str):
        return f"{type(store).__name__!r} object"
    scheme, colon, _ = store.partition(":")
    return repr(f"{scheme}:..." if colon else store[:40])
