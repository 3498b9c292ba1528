"""Pure. A JSON Schema as a grammar for constrained decoding, in exactly the form of `json.dumps`.

Decoders constrained by a schema alone let a small model fill its answer with white space, and
let it answer in a form that it was not trained on. Here every comma and blank is settled, so
that only words and ids are the model's. It takes the part of JSON Schema that Preread's own
schemas use (`reporting.refine.answer.describe_schema`); text is printable ASCII without quotes. The
length of a text is left to the limit of tokens: a decoder compiles a counted repetition state by
state, which took 13 to 19 s of a report, and 0.1 s without (openvino-genai 2026.4, one thread).
"""

from __future__ import annotations

import json
from typing import Any, Final

from reporting.errors import ReportingError
from reporting.refine.answer import STARTS_WITH_CAPITAL
from reporting.refine.port import Schema

#: Printable ASCII but the quotation mark and the backslash, which JSON would have to escape.
_CHARACTER: Final = r"[ !#-\[\]-~]"
_LONGEST_LIST: Final = 50


class UnsupportedSchemaError(ReportingError):
    """A schema uses a part of JSON Schema that has no grammar here; decode without constraint."""


def write_grammar(schema: Schema) -> str:
    """Return a grammar in the EBNF of xgrammar (openvino-genai, vLLM) whose sentences satisfy the schema.

    Raises
    ------
    UnsupportedSchemaError
        If the schema has another type than object, array, string, integer, enum or anyOf, a pattern, or
        an object with optional properties.
    """
    return f"root ::= {_write(schema)}\n"


def _write(schema: Schema) -> str:
    if "enum" in schema:
        return "(" + " | ".join(_literal(json.dumps(value)) for value in schema["enum"]) + ")"
    if "anyOf" in schema:
        return "(" + " | ".join(_write(choice) for choice in schema["anyOf"]) + ")"
    match schema.get("type"):
        case "object":
            return _write_object(schema)
        case "array":
            return _write_array(schema)
        case "string":
            return _write_string(schema)
        case "integer":
            return '("-"? ("0" | [1-9] [0-9]{0,8}))'
    raise UnsupportedSchemaError(f"A schema of type {schema.get('type')} has no grammar.")


def _write_string(schema: Schema) -> str:
    pattern = schema.get("pattern")
    if pattern not in {None, STARTS_WITH_CAPITAL}:
        raise UnsupportedSchemaError("A schema with a pattern has no grammar.")
    first = "[A-Z] " if pattern else ""
    return f'"\\"" {first}{_CHARACTER}* "\\""'


def _write_object(schema: Schema) -> str:
    properties: dict[str, Any] = schema.get("properties", {})
    if set(properties) - set(schema.get("required", ())):
        raise UnsupportedSchemaError("A schema with optional properties has no grammar.")
    pairs = [f"{_literal(json.dumps(key) + ': ')} {_write(value)}" for key, value in properties.items()]
    between = ' ", " '
    return f'"{{" {between.join(pairs)} "}}"' if pairs else '"{}"'


def _write_array(schema: Schema) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems", _LONGEST_LIST)
    if most == 0:
        return '"[]"'
    item = f"({_write(schema['items'])})"
    more = f'{item} (", " {item}){{{max(least - 1, 0)},{most - 1}}}'
    return f'"[" {more} "]"' if least else f'"[" ({more})? "]"'


def _literal(text: str) -> str:
    return json.dumps(text)
