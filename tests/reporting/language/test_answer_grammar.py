from __future__ import annotations

import json
import re

import pytest
from reporting_cases import make_case, make_detection_case, make_label_case
from scripted_model import as_json, word_faithfully

from integration.refining import gather_ground
from reporting.language.answer_grammar import UnsupportedSchemaError, write_grammar
from reporting.refine.answer import describe_schema
from reporting.refine.prompt import build_request

_PART = re.compile(r'"((?:\\.|[^"\\])*)"|(\[(?:\\.|[^\]\\])*\])|(\{\d+,\d+\})|([()|?*])|\s+')


def as_pattern(grammar: str) -> re.Pattern[str]:
    """The grammar has one rule and no recursion, so it is a regular expression in other clothes."""
    rule = grammar.removeprefix("root ::= ")
    assert _PART.sub("", rule) == ""
    pieces = []
    for literal, characters, count, mark in (m.groups() for m in _PART.finditer(rule)):
        if literal is not None:
            pieces.append(f"(?:{re.escape(json.loads(chr(34) + literal + chr(34)))})")
        pieces.append(characters or count or mark or "")
    return re.compile("".join(pieces))


@pytest.mark.parametrize("make", [make_case, make_detection_case, make_label_case])
@pytest.mark.parametrize("seed", range(5))
def test_what_models_are_trained_to_answer_is_in_the_grammar(make, seed):
    case = make()
    ground = gather_ground([case.analysis], case.sources)
    pattern = as_pattern(write_grammar(build_request(ground).schema))
    assert pattern.fullmatch(as_json(word_faithfully(ground, seed)))


@pytest.mark.parametrize(
    "answer",
    [
        (
            '{"findings": [{"text": "No mass.", "ids": ["F9"]}], '
            '"impression": [{"text": "No mass.", "ids": ["F1"]}], "recommendation": []}'
        ),
        '{"findings": [], "impression": [{"text": "No mass.", "ids": ["F1"]}], "recommendation": []}',
        (
            '{"findings": [{"text": "No mass.", "ids": []}], '
            '"impression": [{"text": "No mass.", "ids": ["F1"]}], '
            '"recommendation": []}'
        ),
        '{ "findings": []}',
        (
            '{"findings": [{"text": "...", "ids": ["F1"]}], "impression": [{"text": "...", "ids": ["F1"]}], '
            '"recommendation": []}'
        ),
    ],
)
def test_what_cites_nothing_or_the_unknown_is_not(answer):
    assert not as_pattern(write_grammar(describe_schema(["F1"], [("R1", "Be careful.")]))).fullmatch(answer)


def test_every_sentence_of_the_grammar_is_valid_json():
    pattern = as_pattern(write_grammar(describe_schema(["F1"], [])))
    text = '{"findings": [{"text": "A /b is there.", "ids": ["F1"]}], '
    text += '"impression": [{"text": "It is c.", "ids": ["F1"]}], '
    answer = text + '"recommendation": []}'
    assert pattern.fullmatch(answer)
    assert json.loads(answer)
    assert not pattern.fullmatch(answer.replace("A /b", 'A "b'))


@pytest.mark.parametrize("schema", [{"type": "number"}, {"type": "object", "properties": {"a": {}}}])
def test_a_schema_that_has_no_grammar_is_refused(schema):
    with pytest.raises(UnsupportedSchemaError):
        write_grammar(schema)
