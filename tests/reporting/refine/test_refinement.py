from __future__ import annotations

from dataclasses import replace
from threading import Event

import pytest
from reporting_cases import (
    MAKERS,
    draft_of,
    make_case,
    make_detection_case,
    make_fusion_case,
    make_label_case,
)
from scripted_model import ScriptedModel, StandingClock, as_json, word_faithfully

from integration.refining import FactChecker, gather_ground
from reporting.refine.port import (
    GenerationCancelledError,
    LanguageModelError,
    LanguageModelRestingError,
    LanguageModelTimeoutError,
)
from reporting.refine.record import Budget, Reason, Standing
from reporting.refine.refinement import refine_report
from reporting.safety import _DRAFT_REASONS, REVIEW_SENTENCE
from reporting.text import Author, SectionName

CHECKER = FactChecker()
WORDED = (SectionName.FINDINGS, SectionName.IMPRESSION)


def ground_of(case, **further):
    return gather_ground([case.analysis], case.sources, **further)


def refine(case, model, *, budget=None, clock=None, **further):
    return refine_report(
        draft_of(case),
        ground_of(case, **further),
        model,
        checker=CHECKER,
        budget=budget or Budget(),
        clock=clock or StandingClock(),
        cancel=Event(),
    )


def texts_of(report, name):
    return [sentence.text for sentence in report.section(name).sentences]


def test_without_a_model_the_draft_stands_and_says_so():
    case = make_case()
    refinement = refine(case, None)
    assert refinement.text.sections == draft_of(case).sections
    assert refinement.text.provenance.author is Author.RULES
    assert "no language model is configured" in refinement.text.provenance.remark
    assert refinement.record.reason is Reason.NO_MODEL


@pytest.mark.parametrize("make", [make_case, make_detection_case, make_label_case])
def test_a_faithful_wording_stands_with_all_that_safety_fixes(make):
    case = make()
    sentences = word_faithfully(ground_of(case))
    refinement = refine(case, ScriptedModel(as_json(sentences)))
    assert refinement.record.faults == ()
    assert refinement.record.standing in {Standing.MODEL, Standing.REPAIRED}
    assert refinement.record.replaced == 0
    report, draft = refinement.text, draft_of(case)
    assert report.provenance.author is Author.LANGUAGE_MODEL
    assert report.provenance.language_model == "scripted 1.0"
    assert "language model (scripted 1.0)" in report.provenance.remark
    assert "Rules checked every sentence" in report.provenance.remark
    for section in draft.sections:
        for sentence in (one for one in section.sentences if one.is_fixed):
            assert any(text.endswith(sentence.text) for text in texts_of(report, section.name))
    for one in sentences:
        assert one.text in texts_of(report, one.section)
    assert texts_of(report, SectionName.RECOMMENDATION)[-1] == REVIEW_SENTENCE
    assert report.banner == draft.banner
    unworded = [s for s in draft.sections if s.name not in {*WORDED, SectionName.RECOMMENDATION}]
    assert [s for s in report.sections if s.name in {one.name for one in unworded}] == unworded


def test_a_swapped_side_is_shown_to_the_model_and_corrected_by_it():
    case = make_detection_case()
    faithful = word_faithfully(ground_of(case))
    wrong = [replace(s, text=s.text.replace("right", "left")) for s in faithful]
    model = ScriptedModel(as_json(wrong), as_json(faithful))
    record = refine(case, model).record
    assert (record.attempts, record.replaced, record.faults) == (2, 0, ())
    assert "Its faults:" in model.requests[1].user
    assert model.requests[1].user.startswith(model.requests[0].user)


def test_a_swapped_side_that_stays_gives_way_to_the_draft():
    case = make_detection_case()
    faithful = word_faithfully(ground_of(case))
    wrong = [replace(s, text=s.text.replace("right", "left")) for s in faithful]
    refinement = refine(case, ScriptedModel(as_json(wrong)))
    record = refinement.record
    assert record.standing is Standing.REPAIRED
    assert record.reason is Reason.UNFAITHFUL
    assert record.replaced >= 1
    assert "wrong_side" in dict(record.faults)
    findings = texts_of(refinement.text, SectionName.FINDINGS)
    assert "Nodule: marked over the right lung, upper zone." in findings
    assert not any("left" in text and "nodule" in text.lower() for text in findings)
    assert "Rules replaced" in refinement.text.provenance.remark


def test_a_finding_that_is_left_out_is_told_by_the_draft():
    case = make_detection_case()
    faithful = word_faithfully(ground_of(case))
    short = [s for s in faithful if "F3" not in s.aliases]
    refinement = refine(case, ScriptedModel(as_json(short)))
    assert refinement.record.added >= 1
    for section in WORDED:
        told = {i for s in refinement.text.section(section).sentences for i in s.finding_ids}
        assert told == {"chest-detector/F1", "chest-detector/F2", "chest-detector/F3"}


@pytest.mark.parametrize("make", MAKERS)
def test_a_text_of_inventions_never_leaves(make):
    case = make()
    invention = (
        '{"findings": [{"text": "There is a large mass in the left kidney.", "ids": ["F1"]}], '
        '"impression": [{"text": "Cancer, operate at once.", "ids": ["F1"]}], "recommendation": []}'
    )
    refinement = refine(case, ScriptedModel(invention))
    assert refinement.record.standing is Standing.DRAFT
    assert refinement.text.sections == draft_of(case).sections


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I am a helpful assistant.", Reason.UNUSABLE),
        ('{"findings": [{"text": "A nodule', Reason.UNUSABLE),
        ("{" * 5000, Reason.UNUSABLE),
        ('{"findings": [' + '{"text": "x", "ids": ["F1"]},' * 500 + "]}", Reason.UNUSABLE),
        (LanguageModelError("down"), Reason.UNREACHABLE),
        (LanguageModelTimeoutError("slow"), Reason.OUT_OF_TIME),
        (LanguageModelRestingError("rests"), Reason.RESTING),
        (GenerationCancelledError("enough"), Reason.CANCELLED),
    ],
)
def test_whatever_a_model_does_the_draft_stands_with_the_reason(answer, reason):
    case = make_detection_case()
    refinement = refine(case, ScriptedModel(answer))
    assert refinement.text.sections == draft_of(case).sections
    assert refinement.record.reason is reason
    assert refinement.record.remark == refinement.text.provenance.remark
    assert refinement.text.provenance.language_model is None


def test_an_answer_is_used_although_the_second_attempt_fails():
    case = make_detection_case()
    faithful = word_faithfully(ground_of(case))
    wrong = [replace(s, text=s.text.replace("right", "left")) for s in faithful]
    record = refine(case, ScriptedModel(as_json(wrong), LanguageModelTimeoutError("slow"))).record
    assert record.standing is Standing.REPAIRED


def test_no_second_attempt_beyond_the_budget():
    case = make_detection_case()
    model = ScriptedModel("no JSON")
    refine(case, model, budget=Budget(seconds=10, attempts=5), clock=StandingClock(step=4))
    assert len(model.requests) < 5
    refine(case, model := ScriptedModel("no JSON"), budget=Budget(tokens=100, attempts=5))
    assert len(model.requests) == 1


def test_requests_keep_to_what_is_left_of_the_budget():
    case = make_detection_case()
    model = ScriptedModel("no JSON")
    refine(case, model, budget=Budget(seconds=60, tokens=400, attempts=3))
    assert [request.max_tokens for request in model.requests] == [400, 350, 300]
    assert all(request.timeout_s <= 60 for request in model.requests)


def test_a_study_without_findings_is_not_sent_to_a_model():
    model = ScriptedModel("never asked")
    assert refine(make_fusion_case(), model).record.reason is Reason.NOTHING_TO_WORD
    assert model.requests == []


def test_crude_sentences_without_a_finding_are_listed_and_not_included():
    crude = ("There is a fracture of the left clavicle.", "There is a possible nodule in the right lung.")
    refinement = refine(make_detection_case(), None, crude=crude)
    assert crude[0] in refinement.record.unverified
    assert "clavicle" not in refinement.text.plain


def test_every_reason_has_its_words():
    assert set(_DRAFT_REASONS) == {str(r) for r in Reason} - {Reason.FAITHFUL, Reason.INCOMPLETE}
