"""What no formula knows is counted by its text at least, and is never called exact."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.estimate import Estimate, Estimator
from ratelimit.estimate.guesses import UNKNOWN_FILE
from ratelimit.estimate.models import traits_of
from tests.estimate_bodies import png
from tests.prompts import CALL, NOW, RESULT, USER, chat, responses, tok

PROSE = "The river rose by two metres overnight, and the bridge at Ulm was closed."
FUNCTION = {"type": "function", "function": NOW}
NOW_CALL = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}


def estimate(body: dict[str, Any], endpoint: str | None = None) -> Estimate:
    """Estimate a body, for gpt-4o when it names no model."""
    return Estimator().estimate({"model": "gpt-4o", **body}, endpoint=endpoint)


def with_text(shape: Any) -> Any:
    """Return a copy of a shape of JSON with PROSE in the place of each "?"."""
    if isinstance(shape, dict):
        return {key: with_text(value) for key, value in shape.items()}

    if isinstance(shape, list):
        return [with_text(value) for value in shape]

    return PROSE if shape == "?" else shape


ITEMS: dict[str, dict[str, Any]] = {
    "custom call": {"type": "custom_tool_call", "name": "sql", "call_id": "1", "input": "?"},
    "custom result": {"type": "custom_tool_call_output", "call_id": "1", "output": "?"},
    "custom parts": {
        "type": "custom_tool_call_output",
        "call_id": "1",
        "output": [{"type": "input_text", "text": "?"}],
    },
    "mcp call": {"type": "mcp_call", "name": "find", "arguments": "{}", "output": "?"},
    "mcp tools": {"type": "mcp_list_tools", "tools": [{"name": "find", "description": "?"}]},
    "shell call": {"type": "shell_call", "call_id": "1", "action": {"commands": ["?"]}},
    "shell result": {"type": "shell_call_output", "call_id": "1", "output": [{"stdout": "?"}]},
    "local shell": {"type": "local_shell_call", "action": {"type": "exec", "command": ["?"]}},
    "local shell result": {"type": "local_shell_call_output", "id": "1", "output": "?"},
    "patch": {"type": "apply_patch_call", "operation": {"type": "update_file", "diff": "?"}},
    "patch result": {"type": "apply_patch_call_output", "call_id": "1", "output": "?"},
    "code": {"type": "code_interpreter_call", "code": "?", "outputs": None},
    "logs": {"type": "code_interpreter_call", "outputs": [{"type": "logs", "logs": "?"}]},
    "search": {"type": "file_search_call", "queries": ["?"], "results": None},
    "computer call": {"type": "computer_call", "action": {"type": "type", "text": "?"}},
    "tools found": {"type": "tool_search_output", "tools": [{"name": "a", "description": "?"}]},
    "not yet known": {"type": "dream", "visions": [{"of": {"what": "?"}}]},
    "no type": {"thought": "?"},
    "no role": {"content": "?"},
    "thought of another vendor": {"type": "reasoning", "summary": [{"text": "?"}]},
    "open thought": {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "?"}]},
    "arguments as an object": {"type": "function_call", "name": "a", "arguments": {"b": "?"}},
    "result as an object": {"type": "function_call_output", "call_id": "1", "output": {"b": "?"}},
}


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5", "gpt-5.4"])
@pytest.mark.parametrize("name", ITEMS)
def test_an_input_item_costs_its_text(name: str, model: str) -> None:
    """Whatever an item is called, a Responses body pays for the text in it."""
    made = estimate({"model": model, "input": [USER, with_text(ITEMS[name])]}, "responses")

    assert made.prompt_tokens >= responses([USER], model=model) + tok(PROSE)
    assert made.confidence != "exact"


PARTS: dict[str, dict[str, Any]] = {
    "result of another vendor": {"type": "tool_result", "tool_use_id": "1", "content": "?"},
    "call of another vendor": {"type": "tool_use", "id": "1", "name": "a", "input": {"b": "?"}},
    "thought": {"type": "thinking", "thinking": "?", "signature": ""},
    "document": {"type": "document", "source": {"type": "text", "data": "?"}},
    "not yet known": {"type": "scent", "notes": ["?"]},
    "text in a field": {"type": "text", "text": {"value": "?"}},
    "no type": {"caption": "?", "text": ""},
    "a text and more": {"text": "Look", "caption": "?"},
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_costs_its_text(name: str) -> None:
    """Whatever a part of a content is called, its text is paid for, on both
    endpoints, also beside a call and as its result.
    """
    part = with_text(PARTS[name])
    asked = {"role": "user", "content": [part]}
    called = {**CALL, "content": [part]}
    found = {**RESULT, "content": [part]}
    parallel = {**CALL, "tool_calls": [NOW_CALL, NOW_CALL]}

    for made in (
        estimate({"messages": [asked]}),
        estimate({"input": [asked]}),
        estimate({"messages": [USER, called, RESULT]}),
        estimate({"messages": [USER, CALL, found]}),
        estimate({"messages": [USER, parallel, found, RESULT]}),
    ):
        assert made.prompt_tokens >= tok(PROSE)
        assert made.confidence == "guess"

    assert chat(USER, called, RESULT) >= chat(USER, CALL, RESULT) + tok(PROSE)
    assert chat(USER, CALL, found) >= chat(USER, CALL, RESULT) - tok("noon") + tok(PROSE)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
        {"type": "audio_url", "audio_url": {"url": "https://example.org/a.mp3"}},
        {"type": "input_video", "file_id": "file-1"},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    ],
)
def test_a_part_that_is_a_file_elsewhere_costs_what_an_unknown_file_does(
    part: dict[str, Any],
) -> None:
    """A film behind an address is not the price of the address."""
    made = estimate({"messages": [{"role": "user", "content": [part]}]})

    assert made.prompt_tokens >= UNKNOWN_FILE
    assert made.confidence == "guess"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "source": {"type": "base64", "data": png(512, 512).partition(",")[2]}},
        {"type": "image", "source": {"type": "url", "url": png(512, 512)}},
    ],
)
def test_a_picture_of_another_vendor_is_a_picture(part: dict[str, Any]) -> None:
    """The same picture costs the same, whoever wrote the part."""
    url = {"type": "image_url", "image_url": {"url": png(512, 512)}}
    theirs, ours = (
        estimate({"messages": [{"role": "user", "content": [one]}]}) for one in (part, url)
    )

    assert theirs == ours


def test_a_picture_inside_an_unknown_item_is_priced_as_a_picture() -> None:
    """Its base64 is no text: neither a data URL nor a bare one is counted."""
    bare = png(512, 512).partition(",")[2] + "A" * 90_000
    pictures = [
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": u}}
        for u in (png(512, 512), "data:image/png;base64," + bare)
    ]
    pictures.append({"type": "image_generation_call", "result": bare})
    for item in pictures:
        made = estimate({"input": [USER, item]})

        assert made.images == 1
        assert 255 <= made.prompt_tokens - responses([USER]) <= 255 + 20


CALLS: dict[str, dict[str, Any]] = {
    "arguments as an object": {"function": {"name": "now", "arguments": {"place": "?"}}},
    "arguments as a list": {"function": {"name": "now", "arguments": ["?"]}},
    "custom": {"type": "custom", "custom": {"name": "now", "input": "?"}},
    "not yet known": {"type": "wish", "wish": {"name": "now", "for": "?"}},
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_costs_its_text(name: str) -> None:
    """Whatever a call of a message looks like, what it was called with is paid for."""
    said = {"role": "assistant", "content": None, "tool_calls": [with_text(CALLS[name])]}

    assert chat(USER, said, RESULT) >= chat(USER, CALL, RESULT) - 8 + tok(PROSE)


FIELDS: dict[str, dict[str, Any]] = {
    "refusal": {"role": "assistant", "content": None, "refusal": "?"},
    "thought": {"role": "assistant", "content": "Sun.", "reasoning_content": "?"},
    "details": {"role": "assistant", "content": "Sun.", "reasoning_details": [{"text": "?"}]},
    "calls of a user": {**CALL, "role": "user", "tool_calls": [{"function": {"name": "?"}}]},
    "thought before a call": {**CALL, "reasoning_content": "?"},
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_a_message_costs_its_text(name: str) -> None:
    """What a message holds beside its content is paid for as well."""
    assert chat(USER, with_text(FIELDS[name])) >= chat(USER) + tok(PROSE)


def test_what_the_sdk_adds_to_an_answer_costs_nothing() -> None:
    """Recorded bills show that neither annotations nor what was parsed is billed."""
    said = {"role": "assistant", "content": "Sun."}
    dumped = {**said, "annotations": [{"url": PROSE}], "parsed": {"a": PROSE}, "refusal": None}

    assert estimate({"messages": [USER, dumped]}) == estimate({"messages": [USER, said]})


TOOLS: dict[str, dict[str, Any]] = {
    "custom": {"type": "custom", "name": "sql", "description": "?", "format": {"type": "text"}},
    "grammar": {
        "type": "custom",
        "name": "sql",
        "format": {"type": "grammar", "syntax": "lark", "definition": "?"},
    },
    "namespace": {"type": "namespace", "name": "a", "tools": [{"name": "b", "description": "?"}]},
    "search": {"type": "tool_search", "execution": "client", "description": "? ? " + PROSE * 9},
    "not yet known": {"type": "oracle", "instructions": "?"},
    "of another vendor": {"name": "now", "input_schema": {"description": "?"}},
}


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5"])
@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_of_responses_costs_its_text(name: str, model: str) -> None:
    """Whatever a tool is called, its text is paid for."""
    tool = with_text(TOOLS[name])
    made = estimate({"model": model, "input": "Hi", "tools": [tool]}, "responses")

    least = tok(PROSE) * (9 if name == "search" else 1)
    assert made.prompt_tokens >= responses("Hi", model=model) + least
    assert made.confidence == "guess"


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "custom", "custom": {"name": "sql", "description": "?"}},
        {
            "type": "custom",
            "custom": {
                "name": "sql",
                "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "?"}},
            },
        },
        {"type": "oracle", "oracle": {"instructions": "?"}},
        {"name": "now", "description": "?", "input_schema": {}},
    ],
)
def test_a_tool_of_chat_costs_its_text(tool: dict[str, Any]) -> None:
    """Whatever a tool is called, its text is paid for, alone and beside a function."""
    alone = estimate({"messages": [USER], "tools": [with_text(tool)]})
    beside = chat(USER, tools=[FUNCTION, with_text(tool)])

    assert alone.prompt_tokens >= chat(USER) + tok(PROSE)
    assert alone.confidence == "guess"
    assert beside >= chat(USER, tools=[FUNCTION]) + tok(PROSE)


def test_a_custom_tool_costs_what_was_recorded() -> None:
    """Three recorded bills of gpt-5 show 47 tokens for this tool."""
    tool = {
        "type": "custom",
        "name": "execute_sql",
        "description": "Execute SQL query on the database.",
        "format": {"type": "text"},
    }

    assert responses("Hi", model="gpt-5", tools=[tool]) - responses("Hi", model="gpt-5") == 47


def test_tools_that_the_server_finds_are_counted_once() -> None:
    """Its search finds tools of the request; a client's may bring others."""
    tools = [{"type": "function", "name": "sail", "description": PROSE}, {"type": "tool_search"}]

    def found(execution: str) -> int:
        item = {"type": "tool_search_output", "execution": execution, "tools": tools[:1]}
        return responses([USER, item], model="gpt-5.4", tools=tools)

    bare = responses([USER], model="gpt-5.4", tools=tools)
    assert 0 < found("server") - bare < tok(PROSE)
    assert found("client") - bare > tok(PROSE)


RERANK = {"query": "floods", "documents": [PROSE, {"text": PROSE}], "top_n": 3}


@pytest.mark.parametrize("endpoint", ["/v1/rerank", "/v1/messages", "other", None])
def test_an_endpoint_that_is_not_listed_costs_all_texts(endpoint: str | None) -> None:
    """Every text of the body is counted but the model's name."""
    made = estimate(RERANK, endpoint)
    longer = estimate({**RERANK, "model": "gpt-4o-" + "x" * 90}, endpoint)

    assert made.endpoint == "other"
    assert made.prompt_tokens >= 2 * tok(PROSE) + tok("floods")
    assert longer.prompt_tokens == made.prompt_tokens
    assert made.confidence == "guess"


def test_what_embeddings_take_beside_texts_costs_its_text() -> None:
    """Other vendors embed objects; what stands in them is paid for."""
    made = estimate({"input": [{"content": [{"caption": PROSE}]}]}, "embeddings")

    assert made.prompt_tokens >= tok(PROSE, "cl100k_base")
    assert made.confidence == "guess"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [USER], "system": "?"},
        {"messages": [USER], "documents": [{"title": "?", "text": "?"}]},
        {"prompt": {"id": "pmpt_1", "variables": {"city": "?"}}},
        {"prompt": {"id": "pmpt_1", "variables": {"a": {"type": "input_text", "text": "?"}}}},
        {"model": "davinci-002", "prompt": "One", "suffix": "?"},
    ],
)
def test_a_text_beside_the_prompt_is_paid_for(body: dict[str, Any]) -> None:
    """Where a server takes more of a prompt than the messages, that costs its text."""
    made, bare = estimate(with_text(body)), estimate({**with_text(body), [*body][-1]: None})

    assert made.prompt_tokens >= bare.prompt_tokens + tok(PROSE, traits_of(made.model).encoding)
    assert made.confidence == "guess"


def test_a_prompt_that_the_server_has_adds_no_text() -> None:
    """An id and a version are no part of what the model is shown."""
    kept = estimate({"prompt": {"id": "pmpt_1", "version": "2"}, "input": "Hi"})

    assert kept.prompt_tokens == responses("Hi")


SHAPES = st.recursive(
    st.just("?") | st.none() | st.booleans() | st.integers(-9, 9),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "a", "b", "content", "text", "input", "output", "tools"]),
            inner,
            min_size=1,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(SHAPES.filter(lambda shape: isinstance(shape, dict)), st.sampled_from("abc"))
def test_no_shape_hides_a_text(shape: dict[str, Any], kind: str) -> None:
    """Wherever a text stands in an item, a part, a tool, a call's arguments or a body
    of an unlisted endpoint, it is paid for.
    """
    whole = {**with_text(shape), "type": f"unheard-{kind}"}
    texts = str(whole).count(PROSE)
    bodies: list[tuple[dict[str, Any], str]] = [
        ({"input": [whole]}, "responses"),
        ({"input": [{"role": "user", "content": [whole]}]}, "responses"),
        ({"input": "Hi", "tools": [whole]}, "responses"),
        ({"input": [{"type": "function_call", "arguments": whole}]}, "responses"),
        ({"messages": [{"role": "user", "content": [whole]}]}, "chat.completions"),
        ({"messages": [{"role": "user", "content": whole}]}, "chat.completions"),
        ({"messages": [USER], "tools": [whole]}, "chat.completions"),
        ({"messages": [{**CALL, "tool_calls": [whole]}]}, "chat.completions"),
        ({"input": [whole]}, "embeddings"),
        (whole, "/v1/rerank"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for body, endpoint in bodies:
            made = estimate(body, endpoint)

            assert made.prompt_tokens >= max(1, texts * (tok(PROSE) - 1)), (endpoint, body)
            assert made.confidence == "guess"


def test_a_nest_without_end_is_counted_by_its_texts() -> None:
    """A value that is too deep to be printed costs its texts all the same."""
    deep: Any = PROSE
    for _ in range(50_000):
        deep = [deep]

    made = estimate({"input": [{"type": "dream", "a": deep}]}, "responses")

    assert made.prompt_tokens >= tok(PROSE)
