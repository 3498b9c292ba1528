from __future__ import annotations

from dataclasses import replace

from reporting_cases import draft_of, make_case, make_detection_case, make_label_case

from integration.refining import gather_ground
from reporting.refine.answer import CitedSentence
from reporting.refine.layout import lay_out
from reporting.refine.repair import ToldSentence, repair_answer
from reporting.text import Author, SectionName, Sentence, TextProvenance

BY_MODEL = TextProvenance(author=Author.LANGUAGE_MODEL, remark="A model worded it.", language_model="m 1")


def ground_of(case):
    return gather_ground([case.analysis], case.sources)


def finding(text: str, *aliases: str) -> CitedSentence:
    return CitedSentence(section=SectionName.FINDINGS, text=text, aliases=aliases)


def impression(text: str, *aliases: str) -> CitedSentence:
    return CitedSentence(section=SectionName.IMPRESSION, text=text, aliases=aliases)


def texts(report, name):
    return [sentence.text for sentence in report.section(name).sentences]


def laid_out(case, *sentences):
    told = [ToldSentence(cited=sentence) for sentence in sentences]
    return lay_out(draft_of(case), told, ground_of(case), BY_MODEL)


def test_what_safety_fixes_follows_the_sentence_on_the_same_finding():
    case = make_detection_case()
    report = laid_out(
        case,
        finding("A nodule may be in the right upper lung.", "F3"),
        finding("The heart is large.", "F1"),
    )
    assert texts(report, SectionName.FINDINGS)[:4] == [
        "A nodule may be in the right upper lung.",
        "The algorithm's confidence in this mark is low (0.71).",
        "Repeated readings vary by 0.21 (standard deviation): take this with caution.",
        "The heart is large.",
    ]
    paragraphs = report.section(SectionName.FINDINGS).paragraphs
    assert paragraphs[0].startswith("A nodule may be in the right upper lung. The algorithm's confidence")


def test_where_one_sentence_tells_two_findings_each_confidence_names_its_own():
    report = laid_out(make_case(), finding("Two lesions are seen in the brain.", "F1", "F2"))
    assert texts(report, SectionName.FINDINGS) == [
        "Two lesions are seen in the brain.",
        "FLAIR signal abnormality, right brain: The algorithm's confidence in this outline is high (0.93).",
        (
            "FLAIR signal abnormality, left brain: The algorithm's confidence in this outline is moderate "
            "(0.74)."
        ),
    ]


def test_absence_keeps_what_it_does_not_mean():
    report = laid_out(make_label_case(), finding("There is no hernia or pneumothorax.", "F4", "F5"))
    findings = texts(report, SectionName.FINDINGS)
    assert findings[:2] == ["There is no hernia or pneumothorax.", "This does not rule them out."]


def test_what_two_models_doubt_alike_is_said_once():
    case = make_detection_case()
    draft = draft_of(case)
    doubt = Sentence(text="This answer must be doubted: it is a drill.", is_fixed=True)
    sections = [
        replace(one, sentences=(*one.sentences, doubt, doubt)) if one.name is SectionName.FINDINGS else one
        for one in draft.sections
    ]
    told = [ToldSentence(cited=finding("The heart is large.", "F1"))]
    report = lay_out(replace(draft, sections=tuple(sections)), told, ground_of(case), BY_MODEL)
    assert texts(report, SectionName.FINDINGS).count(doubt.text) == 1


def test_advice_stands_in_its_allowed_words_before_the_review():
    case = make_detection_case()
    advice = CitedSentence(section=SectionName.RECOMMENDATION, text="whatever", aliases=("R1",))
    report = laid_out(case, advice)
    assert texts(report, SectionName.RECOMMENDATION)[0] == ground_of(case).recommendations[0].text
    assert texts(report, SectionName.RECOMMENDATION)[1:] == texts(draft_of(case), SectionName.RECOMMENDATION)


def test_priority_and_procedure_stay_as_drafted():
    case = make_detection_case()
    report, draft = laid_out(case), draft_of(case)
    for name in (SectionName.PRIORITY, SectionName.PROCEDURE):
        assert report.section(name) == draft.section(name)
    assert report.provenance == BY_MODEL


def repaired(case, answer, faults=()):
    return repair_answer(answer, faults, draft_of(case), ground_of(case))


def test_a_fact_is_told_by_one_voice_alone():
    case = make_label_case()  # the draft tells F4 and F5 in one sentence
    answer = [
        finding("Pleural effusion.", "F1"),
        finding("Opacity.", "F2"),
        finding("Oedema is open.", "F3"),
        finding("No hernia.", "F4"),
    ]
    result = repaired(case, answer)
    told = [s.cited.text for s in result.sentences if s.cited.section is SectionName.FINDINGS]
    assert "Not detected: hernia and pneumothorax." in told
    assert "No hernia." not in told
    assert (result.kept, result.replaced) == (3, 1)


def test_an_impression_never_lacks_a_finding():
    case = make_detection_case()
    answer = [
        finding("The heart is large.", "F1"),
        finding("Effusion.", "F2"),
        finding("Nodule.", "F3"),
        impression("Large heart.", "F1"),
    ]
    result = repaired(case, answer)
    told = [s.cited for s in result.sentences if s.cited.section is SectionName.IMPRESSION]
    assert {alias for one in told for alias in one.aliases} == {"F1", "F2", "F3"}
    assert result.added == 2


def test_advice_that_is_not_allowed_is_dropped():
    answer = [CitedSentence(section=SectionName.RECOMMENDATION, text="Operate.", aliases=("R9",))]
    result = repaired(make_detection_case(), answer)
    assert not [s for s in result.sentences if s.cited.section is SectionName.RECOMMENDATION]


def test_two_models_that_disagree_are_told_by_rule_in_the_impression():
    case = make_detection_case()
    denying = replace(make_label_case().analysis.findings[3], concept="nodule", site="lung", finding_id="F1")
    other = replace(make_label_case().analysis, findings=(denying,))
    from reporting.draft import draft_report
    from reporting.projection import read_views

    analyses = [case.analysis, other]
    draft = draft_report(analyses, read_views(case.sources))
    ground = gather_ground(analyses, case.sources)
    answer = [finding("Large heart.", "F1"), finding("Effusion.", "F2"), finding("Nodule.", "F3", "F4")]
    result = repair_answer(answer, (), draft, ground)
    report = lay_out(draft, result.sentences, ground, BY_MODEL)
    assert [t for t in texts(report, SectionName.IMPRESSION) if "The algorithms disagree." in t]
