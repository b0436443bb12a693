"""Any JSON in any place of a request, and what is no JSON.

Owns the generator of broken bodies, for the tests and for `benchmarks/estimating.py`.
"""

from __future__ import annotations

import base64
import copy
import datetime as dt
import gzip
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

RECORDED = Path(__file__).parents[2] / "shared" / "truth" / "calls.jsonl.gz"


def png(width: int, height: int) -> str:
    """The start of a PNG as a data URL: all that tells its size, and nothing of the
    picture.
    """
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(
        ">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0
    )
    return "data:image/png;base64," + base64.b64encode(head + b"\0" * 40).decode()


SEEDS: tuple[dict[str, Any], ...] = tuple(
    map(
        json.loads,
        Path(__file__).with_name("estimate_bodies.jsonl").read_text("utf-8").splitlines(),
    )
)
"""One body, or a few, for every endpoint and every kind of content: what the recorded
calls hold and what they do not."""

ENDPOINTS = (
    None,
    None,
    None,
    "chat.completions",
    "responses",
    "/v1/embeddings",
    "completions",
    "images/generations",
    "audio/speech",
    "moderations",
    "",
)


class Sentinel:
    """What an SDK puts where nothing was given."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3.5, -0.0, 1e308, float("nan"), float("inf")),
    *(10**400, 2**63, "", " ", "\ud800", "\udc00\ud800", "\x00", "a" * 9_000, "国" * 4_000),
    *(" \t" * 3_000 + "x", "=" * 9_000, "{", '{"a":', "<|endoftext|>", "user", "auto"),
    *("object", "array", "#/$defs/Point", "#", "#/", "2025-01-01"),
    *("https://example.org/x.png", "data:image/png;base64,", "data:image/png;base64,!!!"),
    *("data:,", "data:image/jpeg;base64,/9j/4AAQSkZJRg=="),
    *(png(0, 0), png(2**31 - 1, 2**31 - 1), png(1, 60_000)),
    *((), ("a", 1), {1, 2}, b"\xff\xfe", bytearray(b"x"), object(), Sentinel()),
    *(dt.datetime(2025, 3, 20, tzinfo=dt.UTC), 1j, str, len, MappingProxyType({1: 2})),
    *(MappingProxyType({None: "x"}), (piece for piece in "abc"), range(10**9)),
)
"""What nobody would write: wrong types, extremes, broken texts, and what is no JSON."""

ODD_CONTAINERS = (
    *("[]", "{}", "[[]]", "[null]", "[{}]", "[[[]]]", '{"": ""}', "[1, 2]", '["a", 1]'),
    *("[true]", str([*range(500)]), f"[{'1, ' * 500}1]", '{"type": null}', '{"type": "text"}'),
    *('{"type": []}', '{"type": ["null"]}', '{"anyOf": []}', '{"enum": []}'),
    *('{"enum": [null, {}, 1.5]}', '{"$ref": "#"}', '{"$ref": "#/properties/a"}', '{"$ref": 7}'),
    *('{"type": "image_url"}', '{"type": "input_image"}', '{"type": "function"}'),
    '{"role": "user"}',
)
"""Containers, as JSON: each use makes new ones, since later mutations change them."""


def odd(chance: random.Random) -> Any:
    """Draw something odd, now and then at the bottom of a deep nest."""
    if chance.random() < 0.3:
        return json.loads(chance.choice(ODD_CONTAINERS))
    drawn = chance.choice(ODD)
    if chance.random() < 0.03:
        for _ in range(chance.choice((3, 30, 300))):
            drawn = chance.choice(
                (
                    [drawn],
                    {"type": "array", "items": drawn},
                    {"properties": {"a": drawn}},
                    {"content": drawn},
                )
            )
    return drawn


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Walk every place in a body, the outermost excepted, down to a sane depth."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in inner:
        yield (*path, key)
        if len(path) < 12:
            yield from places(child, (*path, key))


def fresh(seed: dict[str, Any] | str) -> dict[str, Any]:
    """Make a body that may be changed from a seed: a recorded call's JSON, or one of
    SEEDS.
    """
    body: dict[str, Any] = json.loads(seed) if isinstance(seed, str) else copy.deepcopy(seed)
    return body


def mutate(body: dict[str, Any], other: dict[str, Any] | str, chance: random.Random) -> None:
    """Change one place of `body`: something odd, a part of another body, gone, doubled,
    wrapped, or under another name.
    """
    everywhere = list(places(body))
    if not everywhere or chance.random() < 0.1:
        body[
            chance.choice(
                (
                    "messages",
                    "input",
                    "prompt",
                    "tools",
                    "model",
                    "n",
                    "max_tokens",
                    "stop",
                    "text",
                    "x",
                )
            )
        ] = odd(chance)
        return
    *way, last = chance.choice(everywhere)
    parent: Any = body
    for key in way:
        parent = parent[key]
    match chance.randrange(6):
        case 0 | 1:
            parent[last] = odd(chance)
        case 2:
            theirs: Any = fresh(other)
            for key in chance.choice(list(places(theirs)) or [()]):
                theirs = theirs[key]
            parent[last] = theirs
        case 3:
            del parent[last]
        case 4:
            parent[last] = (
                [parent[last]] * chance.choice((1, 2, 40))
                if chance.random() < 0.5
                else {"content": parent[last]}
            )
        case _ if isinstance(parent, dict):
            parent[
                chance.choice(
                    (
                        "type",
                        "content",
                        "text",
                        "role",
                        "name",
                        "input",
                        "parameters",
                        "items",
                        "\ud800",
                    )
                )
            ] = parent.pop(last)
        case _:
            parent.insert(0, odd(chance))


def bodies(number: int, seed: int = 20250320) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Generate requests and the endpoint they are sent to (None: not said): all the
    seeds, then mutations of up to four places.

    Recorded calls are seeds too, where their file is present.
    """
    chance = random.Random(seed)
    seeds: list[dict[str, Any] | str] = [*SEEDS]
    if RECORDED.exists():
        with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
            recorded = [json.dumps(json.loads(line)["request"]) for line in lines]
        seeds += [body for body in recorded if len(body) < 10_000]
    for index in range(number):
        own = index < len(SEEDS) or chance.random() < 0.5
        body = fresh(SEEDS[index % len(SEEDS)] if own else chance.choice(seeds))
        if index >= len(SEEDS):
            for _ in range(chance.randint(1, 4)):
                mutate(body, chance.choice(seeds), chance)
        yield body, chance.choice(ENDPOINTS)
