"""Values made for a JSON schema satisfy it, as an independent validator finds."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.testing.patterns import matching
from ratelimit.testing.schemas import example

jsonschema = pytest.importorskip("jsonschema")

NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
        "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
    },
    "required": ["value", "next", "children"],
    "additionalProperties": False,
}


def valid(schema: Any) -> Any:
    """The example, checked with formats by a validator that shares no line with it."""
    value = example(schema)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(value)
    return value


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {}, "additionalProperties": False},
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
        {"$ref": "#/$defs/Node", "$defs": {"Node": NODE}},
        {**NODE, "$defs": {"Node": NODE}},
        {
            "type": "object",
            "properties": {"self": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
            "required": ["self"],
        },
        {"type": "array", "items": {"type": "integer"}, "minItems": 5, "uniqueItems": True},
        {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": True},
        {
            "type": "array",
            "items": {"type": "object", "properties": {"a": {"type": "integer"}}},
            "minItems": 3,
            "uniqueItems": True,
        },
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}], "items": False},
        {"type": "array", "items": {"type": "string"}, "maxItems": 0},
        {"type": ["null", "string"], "minLength": 3},
        {"type": "string", "minLength": 40, "maxLength": 41},
        {"type": "string", "maxLength": 2},
        {"type": "string", "pattern": "^[A-Z]{3}-\\d{4}$"},
        {"type": "string", "pattern": r"^(\+\d{1,3} )?[0-9]{3,}$", "minLength": 12},
        {"type": "string", "pattern": "^(red|green)$"},
        {"type": "string", "pattern": "^[^abc]+$", "minLength": 4, "maxLength": 4},
        {"const": {"a": 1}},
        {"enum": [None, 3]},
        {"type": "boolean"},
        {"allOf": [{"$ref": "#/$defs/a"}, {"required": ["x"]}], "$defs": {"a": {"type": "object"}}},
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"b": {"type": "boolean"}}, "required": ["b"]},
            ]
        },
        {"oneOf": [{"type": "integer", "minimum": 5}, {"type": "string"}]},
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 3},
        {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"], "maxProperties": 1},
        {"properties": {"kind": {"const": "x"}}, "required": ["kind"]},
        {"items": {"minimum": 3}},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1},
        {"type": "number", "minimum": 0.25, "multipleOf": 0.25},
        {"type": "integer", "minimum": -7, "maximum": -3},
        {"type": "integer", "exclusiveMinimum": 9, "multipleOf": 4},
        {"type": "number", "maximum": -2.5},
        *(
            {"type": "string", "format": name}
            for name in ("date", "date-time", "email", "ipv4", "ipv6", "uuid", "uri", "time")
        ),
        True,
        {},
    ],
)
def test_an_example_satisfies_its_schema(schema: Any) -> None:
    """Every keyword that tools and structured answers use, references to itself too."""
    valid(schema)


@given(
    whole=st.booleans(),
    low=st.none() | st.integers(-50, 50),
    width=st.none() | st.integers(1, 50),
    above=st.booleans(),
    below=st.booleans(),
    step=st.none() | st.integers(1, 5),
)
def test_numbers_keep_every_bound(
    whole: bool, low: int | None, width: int | None, above: bool, below: bool, step: int | None
) -> None:
    """Wherever a number is possible, the one that is made lies within all bounds."""
    schema: dict[str, Any] = {"type": "integer" if whole else "number"}
    if low is not None:
        schema["exclusiveMinimum" if above else "minimum"] = low
    if width is not None:
        schema["exclusiveMaximum" if below else "maximum"] = (low or 0) + width + 2 * (step or 1)
    if step is not None:
        schema["multipleOf"] = step

    valid(schema)


@pytest.mark.parametrize("broken", [{"$ref": "#/missing/x"}, {"type": "any"}, {"$ref": 3}, None, 7])
def test_a_schema_that_cannot_be_understood_still_gives_a_value(broken: object) -> None:
    """The server answers; it does not fail for a client's mistake."""
    assert isinstance(example(broken), str)


def test_a_schema_that_requires_itself_without_end_ends() -> None:
    """No value satisfies it, and the server does not hang."""
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "required": ["a"]}}}
    schema["$defs"]["a"]["properties"] = {"a": {"$ref": "#/$defs/a"}}  # type: ignore[index]

    assert isinstance(example(schema), dict)
    assert example({"$ref": "#"}) == "text"


def test_a_schema_that_branches_into_itself_ends() -> None:
    """Two required parts of its own kind would be two to the power of forty values."""
    node: dict[str, Any] = {"type": "object", "required": ["left", "right"]}
    node["properties"] = {"left": {"$ref": "#"}, "right": {"$ref": "#"}}

    assert example(node).keys() == {"left", "right"}
    assert len(example({"type": "array", "minItems": 10**9, "items": {}})) == 10_000
    assert len(example({"type": "string", "minLength": 10**12})) == 100_000


KEYWORDS = st.sampled_from(
    [
        *("type", "enum", "const", "properties", "required", "items", "prefixItems", "anyOf"),
        *("oneOf", "allOf", "$ref", "minimum", "maximum", "exclusiveMinimum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "format", "minItems", "maxItems"),
        *("additionalProperties", "minProperties", "maxProperties"),
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 99)
    | st.floats(allow_nan=False)
    | st.sampled_from(["object", "array", "integer", "#", "#/properties/a", "^a+$", "date", "("]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=12,
)


@given(schema=JSON)
def test_no_schema_breaks_the_server(schema: object) -> None:
    """Whatever stands where a schema should, a value of JSON comes out."""
    json.dumps(example(schema))


@pytest.mark.parametrize(
    "pattern",
    [
        "^a{3,5}b*$",
        r"^(\w+)-\1$",
        r"^\s\S\D\W.$",
        "^(?:x|y)+?z$",
        "^[\u0400-\u04ff]{2}$",
        r"^(?=a)abc\b",
        "",
    ],
)
def test_a_text_is_found_for_a_pattern(pattern: str) -> None:
    """Repetitions, groups, classes, alternatives and anchors."""
    text = matching(pattern)

    assert text is not None
    assert re.search(pattern, text)


@pytest.mark.parametrize(("pattern", "most"), [("[", None), ("^a{9}$", 5), (r"\p{L}", None)])
def test_no_text_is_better_than_a_wrong_one(pattern: str, most: int | None) -> None:
    """A dialect that Python does not read, and a length that cannot be kept."""
    assert matching(pattern, 0, most) is None
