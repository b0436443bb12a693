"""Secrets that no output may show: the API key, and passwords in addresses.

Owns finding them, and masking them in texts and in JSON. Must never print or send.

A key of any length is masked wherever it stands alone in an error, a warning or a
failed result. In answers it is masked too unless it is a short plain word, such as the
"any" that servers without keys are given: masking that would change what the model
said.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

from ratelimit.batch import Result
from ratelimit.batch.results import UNREADABLE
from ratelimit.commands import CommandError

MASK: Final = "***"

DEFAULT_URL: Final = "https://api.openai.com/v1"

SHORTEST_WORD: Final = 12
"""Letters. A key of letters alone that is shorter may be a word of any answer."""

_NEVER: Final = "(?!)"
"""The pattern that nothing matches."""

DEEPEST: Final = 200
"""Levels of an answer. What is nested deeper, Python may be unable to read again."""

_SECRET_FIELD: Final = re.compile(r"key|token|secret|sig|pass|auth", re.IGNORECASE)
"""Names of query fields that hold secrets."""


def read_key() -> str:
    """Read the API key; raise `CommandError` for one that is missing or cannot be."""
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key:
        raise CommandError(
            "there is no API key: set OPENAI_API_KEY (to any text for a server that asks for none)"
        )

    # it would not fit into a header, and the error about that would show it
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CommandError(
            "OPENAI_API_KEY holds a space, a line break or another sign that no key has"
        )
    return key


@dataclass(frozen=True, slots=True)
class Address:
    """The base URL of an API, taken apart so that its password stands nowhere else."""

    url: str
    """Without name, password and query."""
    shown: str
    """Without anything that may be secret."""
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Sent with every request; gateways ask for a version or a key there."""
    login: tuple[str, str] | None = field(default=None, repr=False)
    """Name and password, for HTTP's basic authentication."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    remedy: str = "set OPENAI_API_KEY to a valid one"
    """What helps where it refuses the key."""

    @classmethod
    def read(cls, text: str | None) -> Address:
        """Read a base URL; raise `CommandError`, without secrets, for what is none."""
        if text is None:
            return cls(DEFAULT_URL, DEFAULT_URL)

        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not text.startswith(("http://", "https://")) or not host:
            raise CommandError(
                "the base URL should begin with http:// or https:// and a host, such as"
                f" http://127.0.0.1:8000/v1, not {_without_login(text)!r}"
            )

        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        secrets = [value for name, value in query if _SECRET_FIELD.search(name)]
        login = _login(parts)
        if login is not None:
            secrets += _secrets_of(login)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        url = urlunsplit(bare)
        return cls(url, url, query, login, tuple(filter(None, secrets)))


def _login(address: SplitResult) -> tuple[str, str] | None:
    """Return the name and the password in an address."""
    if not (address.username or address.password):
        return None

    return unquote(address.username or ""), unquote(address.password or "")


def _secrets_of(login: tuple[str, str]) -> list[str]:
    """Return what of a login is secret, and the form in which it is sent.

    A token may stand in the place of the name; a name of letters alone is one.
    """
    name, password = login
    encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
    is_token = not password or not _is_plain_word(name)
    return [password, encoded, *([name] if is_token else [])]


def _without_login(text: str) -> str:
    """Drop what stands before the last "@", and any query, of what is no URL."""
    scheme, slashes, rest = text.rpartition("://")
    kept = rest.rpartition("@")[2].partition("?")[0]
    return scheme + slashes + kept


def environment_secrets(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what is secret of the HTTP client's settings: of proxies and headers."""
    for name, value in environment.items():
        if name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            try:
                # the client reads an address without a scheme, too
                login = _login(urlsplit(value if "://" in value else f"http://{value}"))
            except ValueError:
                continue
            if login is not None:
                yield from _secrets_of(login)

    for line in environment.get("OPENAI_CUSTOM_HEADERS", "").splitlines():
        name, _, value = line.partition(":")
        if _SECRET_FIELD.search(name):
            yield value.strip()
            yield value.strip().rpartition(" ")[2]  # what follows "Bearer"


class Secrets:
    """Texts to be masked, in every form in which an output may quote them."""

    def __init__(self, texts: Iterable[str]) -> None:
        texts = [text for text in texts if text]
        self._anywhere = _pattern(text for text in texts if not _is_plain_word(text))
        self._alone = _pattern(texts)

    def mask(self, text: str) -> str:
        """Mask the secrets in a sentence about an error or a warning."""
        return self._alone.sub(MASK, text)

    def mask_result(self, result: Result) -> Result:
        """Mask the secrets in what came back; the request keeps its name.

        What is nested beyond `DEEPEST` becomes a failure.
        """
        pattern = self._anywhere if result.ok else self._alone
        try:
            body = _masked(result.body, pattern, DEEPEST)
        except _TooDeep:
            said = f"the answer is nested more than {DEEPEST} levels deep"
            return Result(result.request, error={"code": UNREADABLE, "message": said})

        return replace(result, body=body, error=_masked(result.error, pattern, DEEPEST))


class _TooDeep(Exception):
    """An answer is nested beyond `DEEPEST`."""


def _is_plain_word(text: str) -> bool:
    return text.isalpha() and len(text) < SHORTEST_WORD


def _pattern(texts: Iterable[str]) -> re.Pattern[str]:
    """Compile what finds the texts, short ones only where they stand alone."""
    choices = []
    for text in sorted(texts, key=len, reverse=True):
        for form in {text, json.dumps(text)[1:-1], repr(text)[1:-1], quote(text, safe="")}:
            found = re.escape(form)
            if len(text) < SHORTEST_WORD:
                found = f"(?<![A-Za-z0-9]){found}(?![A-Za-z0-9])"
            choices.append(found)
    return re.compile("|".join(choices) or _NEVER)


def _masked(value: Any, pattern: re.Pattern[str], levels: int) -> Any:
    if isinstance(value, str):
        return pattern.sub(MASK, value)

    if not isinstance(value, (list, Mapping)):
        return value

    if not levels:
        raise _TooDeep

    if isinstance(value, list):
        return [_masked(item, pattern, levels - 1) for item in value]

    return {
        pattern.sub(MASK, str(name)): _masked(item, pattern, levels - 1)
        for name, item in value.items()
    }
