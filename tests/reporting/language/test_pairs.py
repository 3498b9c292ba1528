import json
from pathlib import Path

import pytest

from reporting.language.pairs import (
    TEXT_SOURCES,
    PairsError,
    Split,
    draw_pairs,
    is_held_back,
    part_of,
    read_pairs,
    read_texts,
)
from reporting.refine.answer import parse_answer
from reporting.refine.prompt import SYSTEM

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def parts():
    return {split: draw_pairs(split, 250) for split in Split}


def test_no_prompt_of_a_test_is_ever_trained_on(parts):
    prompts = {split: {pair.user for pair in pairs} for split, pairs in parts.items()}
    assert not prompts[Split.TEST] & prompts[Split.TRAINING]
    assert not prompts[Split.TEST] & prompts[Split.VALIDATION]
    assert not prompts[Split.VALIDATION] & prompts[Split.TRAINING]


def test_a_study_belongs_to_one_part_by_its_facts(parts):
    for split, pairs in parts.items():
        assert all(part_of(pair.ground) is split for pair in pairs)


def test_held_back_combinations_are_in_no_training_and_in_most_tests(parts):
    assert not any(is_held_back(pair.ground) for pair in parts[Split.TRAINING])
    assert not any(is_held_back(pair.ground) for pair in parts[Split.VALIDATION])
    assert sum(is_held_back(pair.ground) for pair in parts[Split.TEST]) > 100


def test_equal_seeds_draw_equal_pairs_and_others_do_not():
    assert draw_pairs(Split.TEST, 5, seed=1) == draw_pairs(Split.TEST, 5, seed=1)
    assert draw_pairs(Split.TEST, 5, seed=1) != draw_pairs(Split.TEST, 5, seed=2)


def test_answers_are_what_the_parser_reads(parts):
    assert all(parse_answer(pair.answer) for pair in parts[Split.TRAINING])


def test_too_few_facts_are_refused_with_what_to_do():
    with pytest.raises(PairsError, match="allow more"):
        draw_pairs(Split.TRAINING, 1, kinds=("chest_labels",), most_facts=0)


def test_a_site_adds_its_own_pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    answer = {"findings": [{"text": "A nodule.", "ids": ["F1"]}], "impression": [], "recommendation": []}
    lines = [{"user": "facts", "answer": answer}, {"system": "s", "user": "u", "answer": "text"}]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    first, second = read_pairs(path)
    assert (first.system, first.source) == (SYSTEM, "pairs.jsonl")
    assert parse_answer(first.answer)[0].text == "A nodule."
    assert (second.system, second.answer) == ("s", "text")


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        '{"user": "u"}',
        '{"user": "", "answer": "a"}',
        '{"user": "u", "answer": {"x": 1}}',
        '{"user": "u", "answer": "a", "name": "n"}',
    ],
)
def test_a_damaged_line_is_named_and_not_quoted(tmp_path, line):
    path = tmp_path / "pairs.jsonl"
    path.write_text(f'{{"user": "u", "answer": "a"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(PairsError, match=r"Line 2 of pairs\.jsonl"):
        read_pairs(path)


def test_an_empty_file_and_an_unknown_set_are_refused(tmp_path):
    (tmp_path / "none.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(PairsError, match="no pairs"):
        read_pairs(tmp_path / "none.jsonl")
    with pytest.raises(PairsError, match="no text set"):
        read_texts("unknown", tmp_path)
    with pytest.raises(PairsError, match="lacks"):
        read_texts("mts_dialog", tmp_path)


def test_text_sets_are_read_from_their_own_form(tmp_path):
    mts = tmp_path / TEXT_SOURCES["mts_dialog"].file
    mts.parent.mkdir(parents=True)
    mts.write_text('ID,section_header,section_text,dialogue\n0,CC,"Cough.","Doctor: Hello."\n', "utf-8")
    aci = tmp_path / TEXT_SOURCES["aci_bench"].file
    aci.parent.mkdir(parents=True)
    aci.write_text('dataset,encounter_id,dialogue,note\nx,1,"[doctor] hi","NOTE"\n', "utf-8")
    assert [pair.answer for pair in read_texts("mts_dialog", tmp_path)] == ["Cough."]
    assert [pair.answer for pair in read_texts("aci_bench", tmp_path)] == ["NOTE"]
    aci.write_text("other,columns\n1,2\n", "utf-8")
    with pytest.raises(PairsError, match="another form"):
        read_texts("aci_bench", tmp_path)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "text").is_dir(), reason="../shared/data/text is not there")
@pytest.mark.parametrize("name", list(TEXT_SOURCES))
def test_the_real_text_sets_are_read(name):
    pairs = read_texts(name, DATA)
    assert len(pairs) > 0
    assert all(pair.source == name for pair in pairs)
