"""A pytest fixture for tests of apps that call OpenAI.

Owns the fixture `fake_openai`. Must never need more than pytest and the server.

Put `pytest_plugins = ["ratelimit.testing.plugin"]` into your conftest.py:

    def test_my_app(fake_openai):
        server, base_url = fake_openai(rpm=3, latency=0)
        my_app.run(OpenAI(base_url=base_url, api_key="any"))

        assert not server.ledger.refused
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ratelimit.testing.server import FakeOpenAI

__all__ = ["fake_openai"]


@pytest.fixture
def fake_openai() -> Iterator[Callable[..., tuple[FakeOpenAI, str]]]:
    """Start servers over loopback, which end with the test.

    It takes FakeOpenAI's arguments and returns the server and its base URL.
    """
    with ExitStack() as servers:

        def start(*arguments: Any, **named: Any) -> tuple[FakeOpenAI, str]:
            server = FakeOpenAI(*arguments, **named)
            return server, servers.enter_context(server.serve())

        yield start
