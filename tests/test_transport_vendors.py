"""What other vendors' APIs are asked reserves its tokens and settles by its answer.

Owns bodies of Gemini and Mistral beside plain chat. Must never need a vendor's SDK:
`test_recipes_page.py` runs those, where they are installed.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import RateLimiter
from ratelimit.integrations.vendors import translated
from ratelimit.testing import ThreadClock

LONG = "word " * 400
USED_IN_PART = {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
USED_IN_ALL = {"usage": {"prompt_tokens": 2_000, "completion_tokens": 5, "total_tokens": 2_005}}


@pytest.mark.parametrize(
    ("path", "body", "least"),
    [
        (
            "/v1beta/models/gemini-embedding-001:embedContent",
            {"content": {"parts": [{"text": LONG}]}},
            400,
        ),
        (
            "/v1beta/models/gemini-embedding-001:batchEmbedContents",
            {"requests": [{"content": {"parts": [{"text": LONG}]}}] * 2},
            800,
        ),
        ("/v1beta/interactions", {"model": "gemini-3-pro", "input": LONG}, 400),
        (
            "/v1/conversations",
            {"model": "mistral-small", "instructions": "Be brief.", "inputs": LONG},
            400,
        ),
        (
            "/v1/conversations/conv_1",
            {"inputs": [{"role": "user", "content": LONG}], "completion_args": {"max_tokens": 900}},
            1_300,
        ),
        (
            "/v1/agents/completions",
            {"agent_id": "a", "messages": [{"role": "user", "content": LONG}], "max_tokens": 900},
            1_300,
        ),
    ],
)
def test_what_other_vendors_ask_beside_chat_reserves_its_text(
    path: str, body: Any, least: float
) -> None:
    """Embeddings of Gemini, and what answers from stored turns, cost tokens too."""
    held = RateLimiter(rpd=100, tpd=10_000, arrival_slack=0, clock=ThreadClock())
    seen: list[float] = []

    def handle(_: httpx2.Request) -> httpx2.Response:
        seen.append(10_000 - held.statistics().families["*"].levels["tokens/86400s"])
        return httpx2.Response(200, json=USED_IN_ALL)

    held.wrap(httpx2.Client(transport=httpx2.MockTransport(handle))).post(
        f"http://x{path}", json=body
    )
    family = held.statistics().families["*"]

    assert least <= seen[0] < least + 300
    assert (family.admitted, round(10_000 - family.levels["tokens/86400s"])) == (1, 2_005)


DECLARED = {"name": "look", "description": LONG, "parameters": {"type": "OBJECT"}}
SCHEMA = {"type": "OBJECT", "properties": {"a": {"type": "STRING", "description": LONG}}}
PICTURE = {"mimeType": "image/png", "data": "iVBORw0KGgo" + "A" * 40_000}


@pytest.mark.parametrize(
    ("body", "least"),
    [
        ({"tools": [{"functionDeclarations": [DECLARED]}]}, 400),
        ({"tools": [{"function_declarations": [DECLARED]}]}, 400),
        ({"generationConfig": {"responseSchema": SCHEMA}}, 400),
        ({"generation_config": {"response_json_schema": SCHEMA}}, 400),
        ({"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"a": LONG}}}]}]}, 400),
        (
            {"contents": [{"parts": [{"functionResponse": {"response": {"a": LONG}}}]}]},
            400,
        ),
        ({"contents": [{"parts": [{"text": "Hi"}, {"inlineData": PICTURE}]}]}, 200),
        ({"contents": {"parts": {"text": LONG}}}, 400),
        ({"contents": [{"parts": [{"text": LONG}, {"text": LONG}, None, 7]}]}, 800),
    ],
)
def test_all_that_gemini_is_asked_with_is_counted(body: Any, least: float) -> None:
    """Tools, schemas, calls, results and pictures are part of the prompt, and a picture
    is not counted by its bytes.
    """
    held = RateLimiter(rpd=100, tpd=10_000, arrival_slack=0, clock=ThreadClock())
    seen: list[float] = []

    def handle(_: httpx2.Request) -> httpx2.Response:
        seen.append(10_000 - held.statistics().families["*"].levels["tokens/86400s"])
        return httpx2.Response(200, json=USED_IN_ALL)

    asked = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], **body}
    held.wrap(httpx2.Client(transport=httpx2.MockTransport(handle))).post(
        "http://x/v1beta/models/gemini-2.5-pro:generateContent", json=asked
    )
    without_output = seen[0] - 256

    assert least <= without_output < least + 1_400


def events(*each: dict[str, Any]) -> bytes:
    """Write these as a stream of server-sent events."""
    return "".join(f"data: {json.dumps(event)}\n\n" for event in each).encode()


@pytest.mark.parametrize(
    ("path", "last"),
    [
        (
            "/v1beta/interactions",
            {
                "event_type": "interaction.completed",
                "interaction": {"usage": {"total_input_tokens": 9, "total_output_tokens": 6}},
            },
        ),
        ("/v1/conversations", {"type": "conversation.response.done", **USED_IN_PART}),
    ],
)
def test_a_stream_of_stored_turns_settles_by_its_last_event(path: str, last: Any) -> None:
    """The reserve of its text and its answer is given back for what was used."""
    held = RateLimiter(rpd=100, tpd=10_000, arrival_slack=0, clock=ThreadClock())
    answer = events({"type": "delta", "delta": {"text": "Hello"}}, last)
    client = held.wrap(
        httpx2.Client(
            transport=httpx2.MockTransport(
                lambda _: httpx2.Response(
                    200, content=answer, headers={"content-type": "text/event-stream"}
                )
            )
        )
    )
    client.post(f"http://x{path}", json={"model": "m", "inputs": "Hi", "stream": True})

    assert round(10_000 - held.statistics().families["*"].levels["tokens/86400s"]) == 15


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["parts", "text", "inlineData", "data", "mimeType", "content", "role", "a"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
FIELDS = [
    *("contents", "content", "requests", "input", "inputs", "messages", "tools"),
    *("systemInstruction", "generationConfig", "completion_args", "instructions"),
]


@pytest.mark.filterwarnings("ignore::ratelimit.LimiterWarning")
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4))
def test_any_body_is_read(body: dict[str, Any]) -> None:
    """Nonsense in any of these fields breaks no call, and costs a finite amount."""
    read = translated(body, "m")
    if read is not None:
        estimate = RateLimiter().estimate(read)

        assert 0 <= estimate.prompt_tokens + estimate.output_tokens < 10**9
