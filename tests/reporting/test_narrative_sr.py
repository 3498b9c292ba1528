from __future__ import annotations

from reporting_cases import by_kind, concept_of, items_of, results_of

from reporting.context import ResultKind
from reporting.safety import BANNER


def test_sections_in_reading_order_with_the_banner_first(case):
    document = by_kind(results_of(case))[ResultKind.NARRATIVE]
    sections = [item for item in document.ContentSequence if item.ValueType == "CONTAINER"]
    assert [concept_of(s) for s in sections] == ["55112-7", "55111-9", "59776-5", "19005-8", "18783-1"]
    assert sections[0].ContentSequence[0].TextValue == BANNER


def test_it_is_text_only_so_that_every_viewer_shows_it(case):
    document = by_kind(results_of(case))[ResultKind.NARRATIVE]
    assert {item.ValueType for item in items_of(document)} == {"CONTAINER", "TEXT", "CODE", "UIDREF"}


def test_the_images_that_were_read_are_its_evidence(case):
    document = by_kind(results_of(case))[ResultKind.NARRATIVE]
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    named = [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence]
    assert named == [header.SOPInstanceUID for header in case.series]


def test_a_run_that_found_nothing_has_a_narrative_only(case):
    assert [o.kind for o in results_of(case.without_findings())] == [ResultKind.NARRATIVE, ResultKind.PDF]


def test_each_finding_is_one_paragraph(case):
    document = by_kind(results_of(case))[ResultKind.NARRATIVE]
    findings = [item.TextValue for item in items_of(document) if concept_of(item) == "121071"]
    assert len(findings) == len(case.analysis.findings)
    assert all("mm" in text and "mL" in text for text in findings)
