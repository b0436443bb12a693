"""The file of `ratelimit run --pool`: members of a pool, in TOML.

Owns its keys, and the sentence for what is wrong in it. Keys of accounts stand in the
environment: the file has the variables' names. Must never show a value that may be a
key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAsyncHttpxClient

from ratelimit import Member, Pool, RateLimiter
from ratelimit.commands import CommandError
from ratelimit.commands.run.client import make_client
from ratelimit.commands.secrets import Address, Secrets
from ratelimit.errors import InvalidArgument

LIMITS: Final = ("rpm", "tpm", "rpd", "tpd", "rps", "concurrency", "accounting", "store")
"""Keys of a member that are its limiter's options."""

MEMBER: Final = ("name", "models", "prefer", "after", "weight", "quota")
"""Keys of a member that are `Member`'s options."""

PLACE: Final = ("key", "base_url", "azure_endpoint", "api_version", "drop", "rename")

POOL: Final = ("affinity", "moves", "member")

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

EXAMPLE: Final = 'key = "OPENAI_API_KEY"'

OnResponse = Callable[[object], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class PoolFile:
    """A pool that was read, and what no output may show."""

    pool: Pool
    secrets: tuple[str, ...]


def read_pool(path: Path, on_response: OnResponse) -> PoolFile:
    """Read a pool; raise `CommandError` for a file that cannot be used.

    :param on_response: called for every answer of a member.
    """
    settings = _settings(path)
    tables = settings.pop("member", None)
    _known(settings, POOL, str(path))
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise CommandError(f"{path} has no members: write [[member]] and {EXAMPLE} below it")

    secrets: list[str] = []
    members = [
        _member(table, f"{path}, member {number}", secrets, on_response)
        for number, table in enumerate(tables, 1)
    ]
    try:
        return PoolFile(Pool(members, **settings), tuple(secrets))
    except InvalidArgument as error:
        raise CommandError(f"{path}: {error}") from None


def _settings(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} is no TOML: {_place(error)}") from None


def _place(error: Exception) -> str:
    """Return where the error is, without what stands there."""
    found = re.search(r"\(at [^()]*\)", str(error))
    return found[0].strip("()") if found else type(error).__name__


def _known(table: Mapping[str, Any], names: Collection[str], where: str) -> None:
    for name in table:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
            raise CommandError(f"{where}: there is no key {Secrets([]).mask(name)[:40]!r}{meant}")


def _member(
    table: dict[str, Any], where: str, secrets: list[str], on_response: OnResponse
) -> Member:
    """Make one member."""
    _known(table, (*PLACE, *MEMBER, *LIMITS), where)
    if isinstance(table.get("name"), str):
        where = f"{where} ({table['name'][:60]})"
    key = _key(table.get("key"), where)
    secrets.append(key)
    limits = {name: table[name] for name in LIMITS if name in table}
    has_limiter = "quota" not in table or bool(limits)
    try:
        client = _client(table, key, where, secrets, on_response)
        return Member(
            client,
            limiter=RateLimiter(**limits) if has_limiter else None,
            request=_rewriting(table, where),
            **{name: table[name] for name in MEMBER if name in table},
        )
    except (InvalidArgument, CommandError) as error:
        said = Secrets(secrets).mask(str(error))
        raise CommandError(said if said.startswith(where) else f"{where}: {said}") from None


def _key(variable: object, where: str) -> str:
    """Read the key of the account from the environment."""
    if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
        raise CommandError(
            f"{where}: key is the name of an environment variable that holds the key, not the key"
            f" itself, as in {EXAMPLE}"
        )
    key = os.environ.get(variable, "")
    if not key:
        raise CommandError(
            f"{where}: the environment variable that key names is not set; set it to the key, or"
            " to any text for a server that asks for none"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CommandError(
            f"{where}: the environment variable that key names holds a space, a line break or"
            " another sign that no key has"
        )
    return key


def _client(
    table: dict[str, Any], key: str, where: str, secrets: list[str], on_response: OnResponse
) -> AsyncOpenAI:
    endpoint = table.get("azure_endpoint")
    if endpoint is None:
        if "api_version" in table:
            raise CommandError(f"{where}: api_version goes with azure_endpoint")
        given = table.get("base_url")
        if given is not None and not isinstance(given, str):
            raise CommandError(f"{where}: base_url is a text")
        address = Address.read(given)
        secrets.extend(address.secrets)
        return make_client(key, address, 0, on_response)

    version = table.get("api_version")
    if not isinstance(endpoint, str) or not isinstance(version, str) or "base_url" in table:
        raise CommandError(
            f"{where}: azure_endpoint and api_version are texts, go together, and take the place"
            " of base_url"
        )
    http = DefaultAsyncHttpxClient(event_hooks={"response": [on_response]})
    return AsyncAzureOpenAI(
        api_key=key,
        azure_endpoint=Address.read(endpoint).url,
        api_version=version,
        max_retries=0,
        http_client=http,
    )


def _rewriting(
    table: Mapping[str, Any], where: str
) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """Return what drops and renames the fields that a server does not know."""
    drop, rename = table.get("drop", []), table.get("rename", {})
    if not isinstance(drop, list) or not isinstance(rename, dict):
        raise CommandError(
            f'{where}: drop is a list of fields, as in drop = ["seed"], and rename a table of old'
            ' and new names, as in rename = {max_tokens = "max_completion_tokens"}'
        )
    if not drop and not rename:
        return None

    def rewritten(body: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in body.items() if name not in drop}
        return {rename.get(name, name): value for name, value in kept.items()}

    return rewritten
