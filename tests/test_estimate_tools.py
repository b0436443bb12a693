"""Tools, formats and calls become the texts that are billed: the print of each, line by
line.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.estimate.calls import (
    Call,
    calls_of,
    compact_arguments,
    parallel_call,
    parallel_results,
)
from ratelimit.estimate.formats import chat_format, format_text, responses_format
from ratelimit.estimate.models import traits_of
from ratelimit.estimate.tools import chat_functions, namespace, responses_functions
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.typescript import MOST, Printer


def nothing() -> Totals:
    """Make the sums of a request of which nothing is counted yet."""
    return Totals(traits_of("gpt-4o"))


def printed(
    properties: dict[str, Any],
    *,
    required: tuple[str, ...] = (),
    early: bool = False,
    title: str = "",
    defs: Any = None,
) -> str:
    """The print of an object with these properties."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "title": title,
        "$defs": defs,
    }
    return Printer(schema, early=early).parameters()


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "string"}, "string"),
        ({"type": "integer"}, "number"),
        ({"type": "boolean"}, "boolean"),
        ({"enum": ["C", "F"], "type": "string"}, '"C" | "F"'),
        ({"enum": [1, None, True], "type": "integer"}, "1 | null | true"),
        ({"const": "now"}, '"now"'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string | null"),
        ({"type": ["number", "null"]}, "number | null"),
        ({"type": "array", "items": {"type": "integer"}}, "number[]"),
        ({"type": "array"}, "any[]"),
        ({"type": "object"}, "object"),
        ({"anyOf": [{"type": "object"}, {"type": "null"}]}, "object"),
        ({"type": "object", "properties": {"x": {"type": "number"}}}, "{ x?: number }"),
        (
            {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}}}},
            "{ x?: number }[]",
        ),
        ({}, "any"),
        ({"type": "a kind nobody knows"}, "any"),
    ],
)
def test_each_kind_of_schema_has_its_type(schema: dict[str, Any], shown: str) -> None:
    """The type printed for a property is the one the models are shown."""
    assert printed({"a": schema}, required=("a",)) == f"{{ a: {shown} }}"


def test_comments_stand_above_and_break_the_line() -> None:
    """A title, a description or a default puts every property of that object on its own
    line.
    """
    shown = printed(
        {
            "city": {"type": "string", "title": "City", "description": "Its name,\n  as said. "},
            "unit": {"enum": ["C", "F"], "default": "C"},
            "near": {"type": "object", "properties": {"x": {"type": "number"}}},
        },
        required=("city",),
        title="Waiter",
    )

    assert shown.split("\n") == [
        "// Waiter",
        "{",
        "// City",
        "//",
        "// Its name,",
        "// as said.",
        "city: string,",
        'unit?: "C" | "F", // default: "C"',
        "near?: { x?: number },",
        "}",
    ]


def test_a_list_of_commented_objects_is_an_array_over_lines() -> None:
    """Objects in a list keep their title and their comments."""
    item = {
        "type": "object",
        "title": "Step",
        "properties": {"n": {"type": "integer", "description": "From 1"}},
    }

    assert printed({"steps": {"type": "array", "items": item}}).split("\n") == [
        "{",
        "steps?: Array<",
        "// Step",
        "{",
        "// From 1",
        "n?: number,",
        "}",
        ">,",
        "}",
    ]


def test_a_list_of_types_repeats_its_description() -> None:
    """A described property of several types prints the description above, and again
    beside each type.
    """
    shown = printed(
        {"zone": {"type": ["string", "null"], "description": "Where"}}, required=("zone",)
    )

    assert shown == "{\n// Where\nzone: \n| string // Where\n| null // Where\n,\n}"


def test_a_format_in_a_union_is_noted() -> None:
    """The format of one variant is printed beside it."""
    shown = printed(
        {"day": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}},
        required=("day",),
    )

    assert shown == "{\nday: \n| string // format: date\n| null\n,\n}"


def test_early_models_are_shown_less() -> None:
    """The models of June 2023 see no titles, no defaults, no nested comments and no
    objects without fields.
    """
    shown = printed(
        {
            "name": {"type": "string", "title": "Name", "description": "Who", "default": "Ann"},
            "rest": {"type": "object", "description": "Anything"},
            "home": {
                "type": "object",
                "properties": {"zip": {"type": "string", "description": "Code"}},
            },
            "pets": {
                "type": "array",
                "items": {
                    "type": "object",
                    "description": "A pet",
                    "properties": {"age": {"type": "integer"}},
                },
            },
        },
        required=("name",),
        early=True,
        title="Person",
    )

    assert shown.split("\n") == [
        "{",
        "// Who",
        "name: string,",
        "home?: {",
        "zip?: string,",
        "},",
        "pets?: Array<",
        "{",
        "age?: number,",
        "}",
        ">,",
        "}",
    ]


def test_references_are_followed() -> None:
    """A `$ref` is replaced by what it refers to, and what stands beside it is kept."""
    defs = {"Unit": {"enum": ["C", "F"], "type": "string"}}

    assert "// In which\nunit: " in printed(
        {"unit": {"$ref": "#/$defs/Unit", "description": "In which"}}, required=("unit",), defs=defs
    )
    assert '"C" | "F"' in printed({"unit": {"$ref": "#/$defs/Unit"}}, defs=defs)


def test_a_schema_that_refers_to_itself_ends() -> None:
    """A recursive definition is printed once and then cut."""
    node = {
        "type": "object",
        "properties": {"left": {"$ref": "#/$defs/Node"}, "right": {"$ref": "#/$defs/Node"}},
    }

    assert (
        printed({"tree": {"$ref": "#/$defs/Node"}}, defs={"Node": node})
        == "{ tree?: { left?: any, right?: any } }"
    )


def test_a_few_references_cannot_ask_for_the_universe() -> None:
    """Twenty definitions that each use the next one ten times are cut after MOST."""
    defs = {
        f"D{level}": {
            "type": "object",
            "properties": {f"p{i}": {"$ref": f"#/$defs/D{level + 1}"} for i in range(10)},
        }
        for level in range(20)
    }

    assert printed({"all": {"$ref": "#/$defs/D0"}}, defs=defs).count(":") <= MOST


def test_a_namespace_holds_every_function() -> None:
    """Functions stand in one namespace, with an empty line between them; one without
    parameters takes nothing.
    """
    shown = namespace(
        [
            {"name": "now", "description": " The time. "},
            {
                "name": "add",
                "parameters": {
                    "type": "object",
                    "properties": {"a": {"type": "number"}},
                    "required": ["a"],
                },
            },
        ]
    )

    assert shown == (
        "# Tools\n\n## functions\n\nnamespace functions {\n\n"
        "// The time.\ntype now = () => any;\n\n"
        "type add = (_: { a: number }) => any;\n\n} // namespace functions"
    )


def test_functions_are_found_in_either_shape() -> None:
    """Chat nests a function in its tool, older bodies list functions, Responses has the
    tool itself; other tools are none.
    """
    function = {"name": "now"}

    nested = [{"type": "function", "function": function}, {"type": "custom", "custom": {}}]
    flat = [{"type": "function", **function}, {"type": "web_search"}]

    assert chat_functions({"tools": nested}, nothing()) == [function]
    assert chat_functions({"functions": [function]}, nothing()) == [function]
    assert responses_functions({"tools": flat}, nothing()) == [{"type": "function", **function}]


def test_a_format_is_printed_without_its_constraints() -> None:
    """The schema keeps its order and loses what only validates; properties named like
    keywords stay; it is ASCII.
    """
    schema = {
        "title": "Gruß",
        "type": "object",
        "properties": {
            "required": {"type": "string", "minLength": 1, "default": ""},
            "format": {"type": "number", "maximum": 1},
        },
        "required": ["required"],
        "additionalProperties": False,
    }

    assert format_text({"name": "answer", "description": "Short", "schema": schema}) == (
        "# Response Formats\n\n## answer\n\n// Short\n"
        '{"title":"Gru\\u00df","type":"object","properties":{"required":{"type":"string"},"format":{"type":"number"}}}'
    )


def test_only_a_json_schema_is_a_format() -> None:
    """Plain JSON and text answers print nothing."""
    assert chat_format({"response_format": {"type": "json_object"}}) is None
    assert responses_format({"text": {"format": {"type": "text"}}}) is None
    assert chat_format(
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}
    ) == {"name": "a"}
    assert responses_format({"text": {"format": {"type": "json_schema", "name": "a"}}}) == {
        "type": "json_schema",
        "name": "a",
    }


def test_a_class_is_its_schema() -> None:
    """What the SDK's `parse` takes, a pydantic class, is read as the schema it stands
    for.
    """
    pydantic = pytest.importorskip("pydantic")
    answer = pydantic.create_model("Answer", text=(str, ...))

    assert '"text":{"title":"Text","type":"string"}' in format_text(
        chat_format({"response_format": answer}) or {}
    )
    assert chat_format({"response_format": answer}) == responses_format({"text_format": answer})


def test_calls_are_read_from_either_field() -> None:
    """`tool_calls`, custom tools' calls and the older `function_call` are calls, of
    assistants alone.
    """
    call = {"name": "add", "arguments": "{}"}
    custom = {"name": "sql", "input": "select 1"}

    def calls(role: str, **fields: object) -> list[Call]:
        return calls_of({"role": role, **fields}, nothing())

    assert calls("assistant", tool_calls=[{"function": call}]) == [Call("add", "{}")]
    assert calls("assistant", tool_calls=[{"custom": custom}]) == [Call("sql", "select 1")]
    assert calls("assistant", function_call=call) == [Call("add", "{}")]
    assert calls("user", function_call=call) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_arguments_are_printed_anew(value: Any) -> None:
    """However arguments are spaced, they cost the same and mean the same."""
    assert compact_arguments(json.dumps(value, indent=3)) == compact_arguments(json.dumps(value))
    assert json.loads(compact_arguments(json.dumps(value))) == value


def test_arguments_that_are_no_json_stay() -> None:
    """What a model wrote badly is billed as it wrote it."""
    assert compact_arguments("15 * 4") == "15 * 4"
    assert compact_arguments('{"a": "ö", "b": [1, 2]}') == '{"a":"ö","b":[1,2]}'


def test_parallel_calls_are_one_use_and_one_list() -> None:
    """Several calls of one answer are printed as one call, and their results as one
    JSON list in which JSON is not quoted again.
    """
    calls = [Call("now", "{}"), Call("add", '{"a": 1}')]

    assert json.loads(parallel_call(calls)) == {
        "tool_uses": [
            {"recipient_name": "functions.now", "parameters": {}},
            {"recipient_name": "functions.add", "parameters": {"a": 1}},
        ]
    }
    assert parallel_results(["20 °C", '{"a":1}', "7"]) == '["20 \\u00b0C", {"a": 1}, 7]'
