"""Problems out of order text: what is there, denied, asked, earlier, planned, a relative's."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notes_scores import as_source, count, figures, read_cases, say

from reporting.clinical import Experiencer, NoteReader, NoteReaderError, Polarity, Time, load_lexicon
from reporting.clinical.note_reader import MAX_CHARACTERS


def read(reader, text):
    return {p.concept: p for p in reader.read(as_source(text))}


@pytest.mark.parametrize("part", ["develop", "held_back"])
def test_the_hand_made_cases_are_recognised(reader, part):
    cases = read_cases(part)
    scores = {
        aspect: figures(counter)[2]
        for aspect, counter in count(
            (expected, [say(p) for p in reader.read(as_source(text))]) for text, expected in cases
        ).items()
    }
    assert len(cases) >= 50
    assert scores["problem"] >= 0.98
    assert scores["negation"] >= 0.95
    assert min(scores.values()) >= 0.85, scores


def test_a_span_is_where_the_problem_stands(reader):
    text = "Patient with a dry cough\nand HAEMOPTYSIS."
    spans = {p.concept: text[slice(*p.span)] for p in reader.read(as_source(text))}
    assert spans == {"cough": "dry cough", "haemoptysis": "HAEMOPTYSIS"}


def test_the_text_of_a_problem_is_the_lexicons_and_not_the_notes(reader):
    problem = read(reader, "sHoRtNeSs Of BrEaTh")["dyspnoea"]
    assert problem.text == "shortness of breath"


def test_abbreviations_count_only_in_their_letters(reader):
    assert "pulmonary_embolism" in read(reader, "r/o PE")
    assert "pulmonary_embolism" not in read(reader, "pe teacher")
    assert "dyspnoea" not in read(reader, "Seen by Dr Doe")


def test_a_diagnosis_code_is_no_defibrillator(reader):
    assert read(reader, "ICD-10 code R05, cough").keys() == {"cough"}


def test_to_exclude_asks_and_does_not_deny(reader):
    problem = read(reader, "Headache. To exclude subdural hematoma.")["subdural_haematoma"]
    assert (problem.polarity, problem.is_asked) == (Polarity.UNCERTAIN, True)


def test_history_as_a_heading_is_of_today_and_as_a_phrase_is_not(reader):
    assert read(reader, "HISTORY: cough")["cough"].time is Time.CURRENT
    assert read(reader, "history of asthma")["asthma"].time is Time.HISTORICAL


def test_a_line_break_ends_a_denial_unless_the_line_goes_on(reader):
    apart = read(reader, "no fever\ncough")
    assert apart["cough"].polarity is Polarity.PRESENT
    wrapped = read(reader, "no fever, chills or\nnight sweats")
    assert wrapped["night_sweats"].polarity is Polarity.NEGATED


def test_relatives_are_told_from_the_patient(reader):
    said = read(reader, "Mother had breast cancer. She complains of cough.")
    assert said["breast_cancer"].experiencer is Experiencer.FAMILY
    assert said["cough"].experiencer is Experiencer.PATIENT


def test_what_lies_behind_the_limit_is_not_read(reader):
    assert reader.read(as_source("x " * (MAX_CHARACTERS // 2) + "cough")) == ()


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=120))
def test_any_text_is_read_the_same_way_twice_and_within_its_bounds(reader, text):
    problems = reader.read(as_source(text))
    assert problems == reader.read(as_source(text))
    for problem in problems:
        start, end = problem.span
        assert 0 <= start < end <= len(text)
        assert problem.concept in load_lexicon().entries


def test_reading_a_note_logs_nothing_of_it():
    pytest.importorskip("medspacy")
    script = (
        "from reporting.clinical import NoteReader, SourceKind, SourceText\n"
        "NoteReader().read(SourceText(kind=SourceKind.ORDER, origin='x', text='Zzyzx coughs. No fever.'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "medspacy.context", None)
    with pytest.raises(NoteReaderError, match=r"no-deps\.txt"):
        NoteReader()
