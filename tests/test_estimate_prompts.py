"""What chat prompts cost: each test states one rule as a difference of two bodies, so
that no count is written down twice.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from ratelimit.estimate import Estimator
from ratelimit.estimate.formats import format_text
from ratelimit.estimate.tools import namespace
from tests.prompts import CALL, NOW, RESULT, SCHEMA, SYSTEM, USER, chat, responses, tok


def test_a_message_is_its_text_its_role_and_three() -> None:
    """Every message costs its content, its role and three markers; the answer is opened
    with three.
    """
    assert chat(USER) == 3 + 1 + tok(USER["content"]) + 3
    assert chat(SYSTEM, USER) - chat(USER) == 3 + 1 + tok(SYSTEM["content"])


def test_reasoning_models_open_the_answer_in_two() -> None:
    """O-series and gpt-5 save a token at the end; gpt-5 pays two for each assistant
    message's channel.
    """
    said = {"role": "assistant", "content": "Sunny."}

    assert chat(USER, model="o3-mini") == chat(USER, model="gpt-5-mini") == chat(USER) - 1
    assert chat(USER, said, USER, model="gpt-5") - chat(USER, said, USER, model="o3") == 2
    assert chat(USER, model="gpt-5-chat-latest") == chat(USER)


def test_a_name_follows_the_role_after_a_colon() -> None:
    """The name is counted as a part of the header, where a colon may melt into it."""
    assert chat({**USER, "name": "user"}) - chat(USER) == tok(":user")
    assert chat({**USER, "name": "critic"}) - chat(USER) == tok(":critic")


def test_parts_cost_what_their_texts_do() -> None:
    """A content in one text part costs the same as the text."""
    assert chat({"role": "user", "content": [{"type": "text", "text": USER["content"]}]}) == chat(
        USER
    )


def test_search_models_bill_the_texts_alone() -> None:
    """The search previews add no markers."""
    assert chat(SYSTEM, USER, model="gpt-4o-search-preview") == tok(SYSTEM["content"]) + tok(
        USER["content"]
    )


def test_each_encoding_counts_its_own_models() -> None:
    """Cl100k for gpt-4 and embeddings, o200k for gpt-4o, whatever a deployment is
    called.
    """
    text = "Straßenbahnhaltestellenschild und 東京都庁"

    assert tok(text) != tok(text, "cl100k_base")
    assert chat({"role": "user", "content": text}, model="gpt-4-turbo") == 7 + tok(
        text, "cl100k_base"
    )
    assert Estimator().estimate(
        {"model": "my-embedder", "input": text}, endpoint="embeddings"
    ).prompt_tokens == tok(text, "cl100k_base")


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1", "gpt-3.5-turbo"])
def test_tools_join_a_leading_system_message(model: str) -> None:
    """Functions cost a message of their own, unless a system message stands first to
    take them in.
    """
    tools = [{"type": "function", "function": NOW}]
    alone = chat(USER, model=model, tools=tools) - chat(USER, model=model)
    joined = chat(SYSTEM, USER, model=model, tools=tools) - chat(SYSTEM, USER, model=model)
    behind = chat(USER, SYSTEM, model=model, tools=tools) - chat(USER, SYSTEM, model=model)

    assert alone == behind == joined + 3


def test_reasoning_models_are_shown_more_about_tools() -> None:
    """Functions bring gpt-5 on Chat 85 tokens on channels, o-series 4; a first function
    without a description costs gpt-5 one less.
    """
    tools = [{"type": "function", "function": NOW}]
    bare = [{"type": "function", "function": {"name": "now"}}]

    assert (
        chat(USER, model="gpt-5", tools=tools) - chat(USER, model="gpt-5")
        == tok(namespace([NOW])) + 85
    )
    assert (
        chat(USER, model="gpt-5", tools=bare) - chat(USER, model="gpt-5")
        == tok(namespace([{"name": "now"}])) + 84
    )
    assert (
        chat(SYSTEM, USER, model="gpt-5", tools=tools) - chat(SYSTEM, USER, model="gpt-5")
        == tok(namespace([NOW])) + 85
    )
    assert chat(USER, model="o3", tools=tools) - chat(USER, model="o3") == tok(namespace([NOW])) + 4
    assert (
        responses([USER], model="gpt-5", tools=[{"type": "function", **NOW}])
        - responses([USER], model="gpt-5")
        == tok(namespace([NOW])) + 3
    )


def test_o1_preview_has_a_hidden_part_per_message() -> None:
    """The first reasoning model adds twelve to each message, and once more."""
    assert chat(USER, model="o1-preview") - chat(USER, model="o1") == 24
    assert chat(USER, USER, model="o1-preview") - chat(USER, USER, model="o1") == 36


def test_a_named_function_costs_its_full_name_and_six() -> None:
    """Naming the function to call adds a header to the answer; auto, none and required
    add nothing; gpt-5 pays nothing.
    """
    tools = [{"type": "function", "function": NOW}]
    named = {"type": "function", "function": {"name": "now"}}

    assert (
        chat(USER, tools=tools, tool_choice=named) - chat(USER, tools=tools)
        == tok("functions.now") + 6
    )
    assert (
        chat(USER, model="gpt-4", tools=tools, tool_choice=named)
        - chat(USER, model="gpt-4", tools=tools)
        == tok("functions.now") + 3
    )
    assert chat(USER, tools=tools, tool_choice="required") == chat(USER, tools=tools)
    assert chat(USER, model="gpt-5", tools=tools, tool_choice=named) == chat(
        USER, model="gpt-5", tools=tools
    )


def test_older_functions_cost_what_tools_do() -> None:
    """`functions` and `function_call` are the same tools under older names."""
    tools = chat(
        USER,
        tools=[{"type": "function", "function": NOW}],
        tool_choice={"type": "function", "function": {"name": "now"}},
    )

    assert chat(USER, functions=[NOW], function_call={"name": "now"}) == tools


def test_a_call_and_its_result_are_two_messages() -> None:
    """One call with its result costs the name twice, the arguments, the content, and a
    constant of the model's kind.
    """
    texts = tok("now") + tok(".now") + tok("{}") + tok("noon")

    assert chat(USER, CALL, RESULT) - chat(USER) == 13 + texts
    assert chat(USER, CALL, RESULT, model="o3") - chat(USER, model="o3") == 16 + texts
    assert chat(USER, CALL, RESULT, model="gpt-5") - chat(USER, model="gpt-5") == 19 + texts


def test_the_spacing_of_arguments_costs_nothing() -> None:
    """Arguments are printed without the blanks they came with."""

    def called(arguments: str) -> dict[str, Any]:
        return {
            **CALL,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "now", "arguments": arguments}}
            ],
        }

    assert chat(USER, called('{"a": 1,  "b": [1, 2]}'), RESULT) == chat(
        USER, called('{"a":1,"b":[1,2]}'), RESULT
    )


def test_parallel_calls_are_shown_as_one() -> None:
    """Two calls in one answer cost one use of both, and one list of both results."""
    both = {**CALL, "tool_calls": CALL["tool_calls"] * 2}  # type: ignore[operator]
    one = '{"recipient_name":"functions.now","parameters":{}}'
    use = f'{{"tool_uses":[{one},{one}]}}'

    assert chat(USER, both, RESULT, RESULT) - chat(USER) == 20 + tok(use) + tok('["noon", "noon"]')
    assert chat(USER, both, RESULT, RESULT, model="gpt-5") - chat(USER, model="gpt-5") == 26 + tok(
        use
    ) + tok('["noon", "noon"]')


def test_a_format_marks_every_answer_with_its_name() -> None:
    """A schema's name is printed again before each answer, past ones included; not so
    beside tools.
    """
    body: dict[str, Any] = {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}
    said = {"role": "assistant", "content": "{}"}
    once = chat(USER, **body) - chat(USER)
    twice = chat(USER, said, USER, **body) - chat(USER, said, USER)
    tools: dict[str, Any] = {"tools": [{"type": "function", "function": NOW}]}

    assert twice - once == tok("answer") + 2
    assert chat(USER, **body, **tools) - chat(USER, **tools) == once - (tok("answer") + 2) - 4 + 1


def test_files_are_guessed_by_what_can_be_read() -> None:
    """A text file is counted, a PDF guessed by its pages, an unknown file by a
    constant.
    """

    def file(data: str) -> int:
        return responses(
            [
                {
                    "role": "user",
                    "content": [{"type": "input_file", "filename": "a", "file_data": data}],
                }
            ]
        ) - responses([{"role": "user", "content": []}])

    assert file("data:text/plain;base64,SGVsbG8gd29ybGQ=") == tok("Hello world")
    assert file("data:application/pdf;base64,L1R5cGUgL1BhZ2UgL1R5cGUvUGFnZQ==") == 2 * 400
    assert (
        file("")
        == file("data:application/pdf;base64,A")
        == file("data:application/pdf;base64,§§§§")
        == 600
    )


@pytest.mark.parametrize(
    ("given", "tokens", "prompts"),
    [
        ("Hello world", 2, 1),
        (["Hello world", "Hello"], 3, 2),
        ([1, 2, 3], 3, 1),
        ([[1, 2, 3], [4]], 4, 2),
        ("", 1, 1),
        (["", ""], 2, 2),
        ([], 0, 1),
        (None, 0, 1),
    ],
)
def test_embeddings_take_texts_and_numbers(given: Any, tokens: int, prompts: int) -> None:
    """One or many texts or lists of token numbers, an empty text counting one."""
    estimate = Estimator().estimate(
        {"model": "text-embedding-3-small", "input": given}, endpoint="embeddings"
    )

    assert (estimate.choices, estimate.output_tokens, estimate.max_output_tokens) == (prompts, 0, 0)
    assert estimate.prompt_tokens == tokens


def test_completions_pay_for_every_prompt_and_choice() -> None:
    """The bound of a completion is its maximum, sixteen by default, for each prompt and
    each choice.
    """
    estimate = Estimator().estimate(
        {"model": "gpt-3.5-turbo-instruct", "prompt": ["Hello", "Hello"], "n": 3}
    )

    assert (estimate.endpoint, estimate.prompt_tokens, estimate.max_output_tokens) == (
        "completions",
        2,
        16 * 2 * 3,
    )


def test_a_body_read_twice_costs_the_same() -> None:
    """Estimating keeps nothing that could change the next estimate of the same body."""
    body = {
        "model": "gpt-4o",
        "messages": [SYSTEM, USER, CALL, RESULT],
        "tools": [{"type": "function", "function": NOW}],
    }
    before = json.dumps(body)
    estimator = Estimator()

    assert estimator.estimate(body) == estimator.estimate(body)
    assert json.dumps(body) == before


def test_neighbouring_texts_are_one_text() -> None:
    """Text parts are joined before they are counted, up to the next picture or file."""
    halves = [{"type": "text", "text": "What is the wea"}, {"type": "text", "text": "ther?"}]
    file = {"type": "file", "file": {"file_id": "file-1"}}

    def said(*parts: dict[str, Any]) -> int:
        return chat({"role": "user", "content": list(parts)})

    assert said(*halves) == chat({"role": "user", "content": "What is the weather?"})
    assert said(halves[0], file, halves[1]) - said(*halves) == said(file) - said() + (
        tok("What is the wea") + tok("ther?") - tok("What is the weather?")
    )


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5.4-mini", "o4-mini", "o3"])
def test_a_format_is_marked_in_four_on_reasoning_models(model: str) -> None:
    """The mark of a format has one size there, whatever its name, for past answers too;
    a system message takes one of it.
    """
    wanted = {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}
    text = format_text(SCHEMA)
    said = {"role": "assistant", "content": "Rain"}

    assert chat(USER, model=model, **wanted) - chat(USER, model=model) == tok(text) + 4
    assert chat(SYSTEM, USER, model=model, **wanted) - chat(SYSTEM, USER, model=model) == (
        tok(f"{SYSTEM['content']}\n\n{text}") - tok(SYSTEM["content"]) + 4 - 1
    )
    assert chat(USER, said, USER, model=model, **wanted) - chat(USER, said, USER, model=model) == (
        tok(text) + 8
    )


def test_a_format_beside_functions_saves_one_on_gpt5() -> None:
    """Functions and a format together are one token less than apart."""
    wanted = {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}
    tools = {"functions": [NOW]}
    both = tok(f"{namespace([NOW])}\n\n{format_text(SCHEMA)}") - tok(namespace([NOW]))

    assert chat(USER, model="gpt-5", **wanted, **tools) == (
        chat(USER, model="gpt-5", **tools) + both - 1
    )


def test_a_call_that_is_required_costs_two_on_early_gpt4() -> None:
    """tool_choice "required" adds two tokens on gpt-4, and none on later models."""
    tools = [{"type": "function", "function": NOW}]

    def required(model: str) -> int:
        free = chat(USER, model=model, tools=tools)
        return chat(USER, model=model, tools=tools, tool_choice="required") - free

    assert [required(model) for model in ("gpt-4", "gpt-4-turbo", "gpt-4o")] == [2, 0, 0]


def test_the_name_of_an_answer_with_calls_is_billed() -> None:
    """A name costs what it costs on a message without calls."""
    named = {**CALL, "name": "ann"}

    assert chat(USER, named, RESULT) - chat(USER, CALL, RESULT) == tok(":ann")


def test_functions_after_an_empty_system_message_cost_one_more() -> None:
    """The message that takes them is there, and has no text to join them to."""
    empty = {"role": "system", "content": ""}

    assert chat(empty, USER, functions=[NOW]) - chat(empty, USER) == tok(namespace([NOW]))


def test_the_dialect_of_a_schema_is_not_printed() -> None:
    """`$schema` costs nothing."""
    dialect = "http://json-schema.org/draft-07/schema#"
    schema = {"$schema": dialect, "type": "object", "properties": {}}
    bare = {"type": "object", "properties": {}}

    assert format_text({"name": "a", "schema": schema}) == format_text(
        {"name": "a", "schema": bare}
    )
