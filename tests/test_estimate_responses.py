"""What Responses prompts cost: each test states one rule as a difference of two
bodies, so that no count is written down twice.
"""

from __future__ import annotations

from typing import Any

from ratelimit.estimate import Estimator
from ratelimit.estimate.formats import format_text
from ratelimit.estimate.tools import namespace
from tests.prompts import NOW, SCHEMA, SYSTEM, USER, chat, responses, tok


def test_chat_and_responses_bill_messages_alike() -> None:
    """The same messages cost the same on both endpoints; instructions are a system
    message; a text is a user's.
    """
    assert responses([SYSTEM, USER]) == chat(SYSTEM, USER)
    assert responses(USER["content"], instructions=SYSTEM["content"]) == chat(SYSTEM, USER)
    assert responses(USER["content"], instructions="") == chat(USER)
    assert responses([{**USER, "type": "message"}], model="gpt-5") == chat(USER, model="gpt-5")


def test_a_kept_call_costs_three_more() -> None:
    """A call that is sent back with the id the server gave it costs three tokens more
    than one without.
    """
    call = {"type": "function_call", "call_id": "1", "name": "now", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "1", "output": "noon"}
    plain = responses([USER, call, output])

    assert plain - responses([USER]) == 11 + 2 * tok(".now") + tok("{}") + tok("noon")
    assert responses([USER, {**call, "id": "fc_1", "status": "completed"}, output]) - plain == 3


def test_newer_models_are_shown_calls_in_more_tokens() -> None:
    """Calls cost more from generation to generation; gpt-5.4 tells calls in a row as
    one.
    """
    call = {"type": "function_call", "call_id": "1", "name": "now", "arguments": "{}"}
    one = '{"recipient_name":"functions.now","parameters":{}}'
    use = f'{{"tool_uses":[{one},{one}]}}'
    texts = 2 * tok(".now") + tok("{}")

    assert responses([USER, call], model="gpt-5") - responses([USER], model="gpt-5") == 17 + texts
    assert (
        responses([USER, call], model="gpt-5.4") - responses([USER], model="gpt-5.4") == 20 + texts
    )
    assert responses([USER, call, call], model="gpt-5") - responses([USER], model="gpt-5") == 2 * (
        17 + texts
    )
    assert responses([USER, call, call], model="gpt-5.4") - responses(
        [USER], model="gpt-5.4"
    ) == 16 + tok(use) + 2 * (7 + tok(".now"))


def test_a_format_on_responses_is_its_text() -> None:
    """On Responses a schema costs its print, and one more on models before gpt-5; its
    name is not printed again.
    """
    answer = {"format": {"type": "json_schema", **SCHEMA}}

    assert responses([USER], text=answer) - responses([USER]) == tok(format_text(SCHEMA)) + 1
    assert responses([USER], model="gpt-5", text=answer) - responses([USER], model="gpt-5") == tok(
        format_text(SCHEMA)
    )


def test_tools_that_come_later_are_shown_whole() -> None:
    """Tools that an item of the input brings are printed like any, with the same
    remarks as on Chat.
    """
    item = {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", **NOW}]}

    assert (
        responses([USER, item], model="gpt-5.6") - responses([USER], model="gpt-5.6")
        == tok(namespace([NOW])) + 85
    )


def test_responses_tools_stand_apart_from_instructions() -> None:
    """On Responses the functions cost the same with and without a system message."""
    tools = [{"type": "function", **NOW}]

    assert responses(USER["content"], tools=tools) - responses(USER["content"]) == responses(
        USER["content"], instructions="Be terse.", tools=tools
    ) - responses(USER["content"], instructions="Be terse.")


def test_a_forced_function_is_named_on_responses() -> None:
    """With one function "required" names it; with two it does not."""
    tools = [{"type": "function", **NOW}]
    other = {"type": "function", "name": "add", "description": "A sum"}

    assert (
        responses("Hi", tools=tools, tool_choice="required") - responses("Hi", tools=tools)
        == tok("functions.now") + 6
    )
    assert responses("Hi", tools=[*tools, other], tool_choice="required") == responses(
        "Hi", tools=[*tools, other]
    )


def test_functions_that_may_not_be_called_cost_one_more() -> None:
    """On gpt-4* "none" adds a token to the functions, on gpt-5 nothing."""
    tools = [{"type": "function", **NOW}]

    for model, more in (("gpt-4o-mini", 1), ("gpt-5-mini", 0)):
        bare = responses("Hi", model=model, tools=tools)
        assert responses("Hi", model=model, tools=tools, tool_choice="none") - bare == more


def test_reasoning_before_the_last_question_is_free() -> None:
    """A model sees its own reasoning until the user speaks again: before that it is
    billed by its length, later not at all.
    """
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" * 2_000}

    assert responses([USER, thought, USER], model="gpt-5") == responses([USER, USER], model="gpt-5")
    assert 100 < responses([USER, thought], model="gpt-5") - responses([USER], model="gpt-5") < 250


def test_built_in_tools_are_guessed() -> None:
    """A built-in tool adds its instructions, and the estimate is then a guess."""
    searching = Estimator().estimate(
        {"model": "gpt-4o", "input": "Hi", "tools": [{"type": "web_search_preview"}]}
    )

    assert searching.prompt_tokens - responses("Hi") == 294
    assert (searching.confidence, searching.basis.kind) == ("guess", "built-in")


CALLED: dict[str, Any] = {
    "type": "function_call",
    "call_id": "1",
    "name": "now",
    "arguments": '{"n": 1}',
}
ANSWERED = {"type": "function_call_output", "call_id": "1", "output": "noon"}


def test_the_id_of_a_single_call_is_billed() -> None:
    """A kept call costs three more, on gpt-4o only with its status, and none of several
    in a row.
    """
    kept = {**CALLED, "id": "fc_1"}
    done = {**kept, "status": "completed"}

    def more(given: list[Any], bare: list[Any], model: str) -> int:
        return responses(given, model=model) - responses(bare, model=model)

    for model, without_status in (("gpt-4o", 0), ("gpt-5", 3), ("o4-mini", 3)):
        assert more([done, ANSWERED], [CALLED, ANSWERED], model) == 3
        assert more([kept, ANSWERED], [CALLED, ANSWERED], model) == without_status
        assert more([done, done, ANSWERED], [CALLED, CALLED, ANSWERED], model) == 0


def test_arguments_are_verbatim_until_gpt54() -> None:
    """Blanks in the arguments are billed; gpt-5.4 and later are shown them without."""
    tight = {**CALLED, "arguments": '{"n":1}'}
    blank = tok('{"n": 1}') - tok('{"n":1}')

    assert blank == 1
    for model, more in (("gpt-4o", 1), ("gpt-5", 1), ("gpt-5.4", 0), ("gpt-6-sol", 0)):
        assert responses([CALLED], model=model) - responses([tight], model=model) == more


def test_o4_mini_is_shown_functions_formats_and_calls_as_they_are() -> None:
    """Functions and a format add their text alone, a call as much as on gpt-5."""
    tools = [{"type": "function", **NOW}]
    wanted = {"format": {"type": "json_schema", **SCHEMA}}
    bare = responses("Hi", model="o4-mini")

    assert responses("Hi", model="o4-mini", tools=tools) - bare == tok(namespace([NOW]))
    assert responses("Hi", model="o4-mini", text=wanted) - bare == tok(format_text(SCHEMA))
    assert responses([CALLED], model="o4-mini") == responses([CALLED], model="gpt-5")


def test_a_patch_model_bills_a_picture_without_a_base_token() -> None:
    """On Responses the base token of gpt-5-mini and -nano is missing."""
    picture = {"type": "input_image", "image_url": "https://example.org/a.png"}
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}, picture]}]
    url = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    said = {"role": "user", "content": [{"type": "text", "text": "Hi"}, url]}

    assert responses(asked, model="gpt-5-mini") == chat(said, model="gpt-5-mini") - 1
    assert responses(asked, model="gpt-5") == chat(said, model="gpt-5")
