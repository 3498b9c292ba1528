from __future__ import annotations

from dataclasses import replace

import pytest
from reporting_cases import by_kind, concept_of, make_head_ct_case, make_label_case, results_of

from inference.findings import FrameReference, Presence
from reporting.context import ResultKind
from reporting.errors import UnencodableResultError


def test_the_key_slice_of_a_present_label_is_selected():
    case = make_head_ct_case()
    document = by_kind(results_of(case))[ResultKind.KEY_IMAGES]
    assert concept_of(document) == "113000"
    images = [item for item in document.ContentSequence if item.ValueType == "IMAGE"]
    assert [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in images] == [
        case.analysis.findings[0].key_frame.sop_instance_uid
    ]
    (text,) = [item.TextValue for item in document.ContentSequence if concept_of(item) == "113012"]
    assert text.startswith("AI RESULT - NOT REVIEWED")


def test_nothing_is_selected_without_a_present_label_with_a_slice():
    assert ResultKind.KEY_IMAGES not in by_kind(results_of(make_label_case()))
    case = make_head_ct_case()
    absent = replace(case.analysis.findings[0], presence=Presence.ABSENT)
    assert ResultKind.KEY_IMAGES not in by_kind(results_of(case.saying(findings=(absent,))))


def test_a_slice_that_is_not_there_is_refused():
    case = make_head_ct_case()
    finding = replace(case.analysis.findings[0], key_frame=FrameReference(sop_instance_uid="1.2.3"))
    with pytest.raises(UnencodableResultError, match="key image"):
        results_of(case.saying(findings=(finding,)))
