"""The client of a run: the SDK's, at the address and with the login that were given.

Owns making it, and the sentence for what it cannot be made of. Must never send.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from ratelimit.commands import CommandError
from ratelimit.commands.secrets import Address

_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The names that HTTP gives headers (RFC 9110, 5.6.2)."""


def make_client(
    key: str, address: Address, retries: int, on_response: Callable[[object], Awaitable[None]]
) -> AsyncOpenAI:
    """Make the client; raise `CommandError` where the settings allow for none.

    :param on_response: called for every answer, those to the SDK's retries included.
    """
    try:
        http = DefaultAsyncHttpxClient(
            auth=address.login, params=address.query, event_hooks={"response": [on_response]}
        )
    except Exception as error:  # the libraries below raise whatever they meet
        raise CommandError(
            f"the HTTP client cannot be made: {' '.join(str(error).split())}; check HTTP_PROXY,"
            " HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
        ) from error

    try:
        client = AsyncOpenAI(
            api_key=key, base_url=address.url, max_retries=retries, http_client=http
        )
    except Exception as error:
        raise CommandError(f"the base URL {address.shown} cannot be used: {error}") from error

    for name, value in client.default_headers.items():
        if isinstance(value, str) and not _can_be_sent(name, value):
            raise CommandError(
                f"the header {name!r} cannot be sent with what it holds; check OPENAI_ORG_ID,"
                " OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS"
            )
    return client


def _can_be_sent(name: str, value: str) -> bool:
    return _HEADER.fullmatch(name) is not None and value.isascii() and value.isprintable()
