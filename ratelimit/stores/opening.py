"""Which store keeps the buckets of a family, by what a user has written.

Owns the forms of ``store=``. Must never take from a store.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import stat
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qsl, quote, urlsplit

from ratelimit.errors import InvalidArgument
from ratelimit.limits import Limits
from ratelimit.stores.alone import Alone, OnStoreError
from ratelimit.stores.memory import MemoryStore

if TYPE_CHECKING:
    from ratelimit.stores.redis.link import Link

Now = Callable[[], float]


class RedisClient(Protocol):
    """What is used of a redis-py client."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its reply."""


OpenStore = Callable[[str, Limits, float, float], MemoryStore]
"""Makes the store of a family: its name, its limits, now and the slack in seconds."""

REDIS: Final = frozenset({"redis", "rediss", "unix"})
"""Schemes of the addresses of Redis and Valkey servers."""
REAL: Final = "boot"
"""How the name of the real clock begins."""
FORMS: Final = (
    'store= is "redis://HOST:PORT/0" (or a client of redis-py), which processes of many '
    'machines share, or "file:" and a folder, such as "file:~/.cache/ratelimit/openai", which '
    "those of one machine share"
)

_UNKNOWN_OPTION: Final = re.compile(r"unexpected keyword argument '(\w+)'")

LONGEST_NAME: Final = 150
"""Characters of a family's name in the name of its file."""


def opener(
    store: str | RedisClient | None, on_store_error: OnStoreError, clock: Now, epoch: str
) -> OpenStore:
    """Return what makes the stores of a limiter.

    :param store: the address of a Redis or Valkey server, a redis-py client, or "file:"
        and a folder; None: this process's memory.
    :param clock: the time it is, in seconds.
    :param epoch: names the clock that moments come from.

    Raises `InvalidArgument` on what cannot be used.
    """
    Alone(on_store_error)  # refuses what is no policy
    if store is None:
        return lambda _, limits, now, slack: MemoryStore(limits, now, slack)
    if is_server(store):
        return _redis_opener(store, on_store_error, clock, epoch)

    folder = folder_of(store)
    # filelock is of the extra `file`, and this part of Unix alone.
    from ratelimit.stores.folder.quota_file import QuotaFile  # noqa: PLC0415
    from ratelimit.stores.folder.store import FileStore  # noqa: PLC0415

    def make(name: str, limits: Limits, now: float, slack: float) -> MemoryStore:
        path = folder / _file_name(name)
        return FileStore(lambda: QuotaFile(path), epoch, Alone(on_store_error), limits, now, slack)

    return make


def _redis_opener(store: object, on_store_error: OnStoreError, clock: Now, epoch: str) -> OpenStore:
    link = link_of(store)
    if not epoch.startswith(REAL):
        raise InvalidArgument(
            "a server has a clock of its own: with store= on Redis leave clock= out"
        )
    from ratelimit.stores.redis.store import RedisStore  # noqa: PLC0415  # of the extra `redis`

    def make(name: str, limits: Limits, now: float, slack: float) -> MemoryStore:
        alone = Alone(on_store_error)
        return RedisStore(link, link.key(name), alone, limits, now, slack, clock)

    return make


def refuse_store(store: object) -> None:
    """Raise `InvalidArgument` for what is no ``store=``; nothing is made or asked."""
    if is_server(store):
        link_of(store)
    else:
        folder_of(store)


def is_server(store: object) -> bool:
    """Return whether ``store=`` names a server: by its address, or a client."""
    return not isinstance(store, str) or store.partition(":")[0] in REDIS


def link_of(store: object) -> Link:
    """Return the link to the server that ``store=`` names; nothing is connected yet."""
    if find_spec("redis") is None:
        raise _missing("redis", "redis")
    from ratelimit.stores.redis.link import Link, connected  # noqa: PLC0415

    if isinstance(store, str):
        try:
            return Link(*connected(store))
        except (ValueError, TypeError, AttributeError) as error:
            why = _fault_of(store, error)
            raise InvalidArgument(
                'store= is an address such as "redis://localhost:6379/0", "rediss://..." or '
                f'"unix:///run/redis.sock", with ?quota=NAME for a quota of its own; '
                f"{_shown(store)} cannot be read ({why})"
            ) from None
    execute = getattr(store, "execute_command", None)
    if not callable(execute) or inspect.isclass(store) or hasattr(store, "command_stack"):
        raise InvalidArgument(f"{FORMS}; not {_shown(store)}")
    if inspect.iscoroutinefunction(execute):
        raise InvalidArgument(
            "store= takes a client of redis, not of redis.asyncio: it is used in a thread of "
            "its own, for asyncio as well"
        )
    return Link(store, "default")


def folder_of(store: object) -> Path:
    """Return the folder that ``store=`` names."""
    scheme, _, rest = store.partition(":") if isinstance(store, str) else ("", "", "")
    if scheme != "file" or not rest.removeprefix("//"):
        raise InvalidArgument(f"{FORMS}; not {_shown(store)}")
    if not hasattr(os, "pread"):
        raise InvalidArgument(
            "store= shares a quota through a file on Linux, macOS and other Unix systems only; "
            "leave it out, and give each process its share of the limits"
        )
    if find_spec("filelock") is None:
        raise _missing("filelock", "file")
    if rest.startswith("//") and not rest.startswith(("///", "//~")):
        raise InvalidArgument('store= names a folder as "file:/path", "file:path" or "file:~/path"')
    if "?" in rest:
        raise InvalidArgument("store= names a folder, without ?options; name another one")
    try:
        folder = Path(rest.removeprefix("//")).expanduser().absolute()
        is_other = not stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        is_other = False
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidArgument(f"store= names a folder that cannot be: {error}") from None
    if is_other:
        raise InvalidArgument(f"store= names a folder, and {folder} is none; name another one")
    return folder


def _fault_of(address: str, error: Exception) -> str:
    """Return what is wrong with an address, in words without a part of it.

    It may hold a password, also where none was expected.
    """
    option = _UNKNOWN_OPTION.search(str(error))
    if option:
        return f"there is no option {option[1]}"
    quoting = "in a password write / : @ ? # as %2F %3A %40 %3F %23"
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return f"its host or port is none; {quoting}"
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        return f"behind the port stands the number of a database; {quoting}"
    fields = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not fields.get("quota", "any"):
        return "?quota= names none"
    return "an option behind the ? has a value of another kind" if fields else type(error).__name__


def _missing(package: str, extra: str) -> InvalidArgument:
    from ratelimit.installation import install_command  # noqa: PLC0415  # slow to load

    return InvalidArgument(f"store= needs the package {package}: {install_command(extra)}")


def _file_name(name: str) -> str:
    """Return the name of a family's file, which no other family has."""
    quoted = quote(name, safe=" ,=+@", errors="backslashreplace")
    if len(quoted) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()
        quoted = f"{quoted[:LONGEST_NAME]}-{digest[:16]}"
    return f"{quoted}.quota"


def _shown(store: object) -> str:
    """Return what a message shows: of an address no more than its scheme."""
    if not isinstance(store, str):
        return f"a {type(store).__name__}"
    scheme, colon, _ = store.partition(":")
    return repr(f"{scheme}:..." if colon else store[:40])
