from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image
from pydicom.uid import EncapsulatedPDFStorage
from pydicom.valuerep import PersonName
from pypdf import PdfReader
from reporting_cases import (
    CONTEXT,
    MAKERS,
    MODEL,
    by_kind,
    draft_of,
    make_case,
    make_detection_case,
    make_fusion_case,
    make_head_ct_case,
    make_refused_case,
    results_of,
    violations_of,
)

from inference.findings import Measurement, Quantity
from reporting.comparison import Comparison, Prior, compare_with_prior, describe_changes
from reporting.context import ResultKind
from reporting.draft import draft_report
from reporting.encode import encode_results, write_part10
from reporting.gate.documents import read_pages
from reporting.pdf import DocumentExtras, ModelNotes, PageSize, note_model, read_pdf
from reporting.safety import BANNER, PICTURE_BANNER, REQUIRED_PHRASE
from reporting.slice_heat import draw_slice_heat
from reporting.text import Author, SectionName, TextProvenance

ROOT = Path(__file__).resolve().parents[2]


def pdf_of(case, text=None, document=None):
    document = document or DocumentExtras()
    objects = encode_results([case.reading], case.sources, text or draft_of(case), case.context, document)
    return by_kind(objects)[ResultKind.PDF]


def reader_of(case, text=None, document=None):
    return PdfReader(io.BytesIO(read_pdf(pdf_of(case, text, document))))


def words_of(reader):
    return " ".join(" ".join(page.extract_text() for page in reader.pages).split())


def compared(case, days=73):
    """The case with an earlier reading in which the first lesion was half as large, and that comparison."""
    first, *others = case.analysis.findings
    half = tuple(
        replace(m, value=m.value / 2) if m.quantity is Quantity.VOLUME else m for m in first.measurements
    )
    before = replace(case.analysis, findings=(replace(first, measurements=half), *others))
    changes = compare_with_prior([case.analysis], [before], days)
    prior = Prior(run_id="earlier-run", days=days, analyses=(before,), studied_on=date(2025, 10, 21))
    return Comparison(prior=prior, changes=changes)


@pytest.mark.parametrize("make", MAKERS)
def test_every_page_of_every_kind_of_report_has_banner_run_and_number(make):
    reader = reader_of(make())
    for number, page in enumerate(reader.pages, start=1):
        words = page.extract_text()
        assert words.startswith(PICTURE_BANNER)
        assert f"Run {CONTEXT.run_id}" in words
        assert words.rstrip().endswith(f"Page {number} of {len(reader.pages)}")


@pytest.mark.parametrize("make", MAKERS)
def test_the_text_that_stands_is_in_the_file_in_its_order(make):
    case = make()
    words, place = words_of(reader_of(case)), 0
    for section in draft_of(case).sections:
        for sentence in section.sentences:
            place = words.index(" ".join(sentence.text.split())[:60], place)


def test_patient_and_study_are_named_as_the_images_name_them(case):
    words = words_of(reader_of(case))
    for value in ("Müller Änne", "SYN0001", "1960-01-01", "ACC0001", "2026-01-02 10:15", "MR HEAD"):
        assert value in words


def test_what_the_images_do_not_say_stays_blank(case):
    for header in case.series:
        for keyword in ("PatientBirthDate", "AccessionNumber", "StudyDate", "StudyTime", "PatientName"):
            setattr(header, keyword, None)
    words = words_of(reader_of(case))
    assert "None" not in words
    assert "Accession number" in words


def test_no_patient_is_in_what_the_file_says_of_itself(case):
    reader = reader_of(case)
    described = " ".join(str(value) for value in reader.metadata.values())
    assert "Müller" not in described
    assert "SYN0001" not in described
    assert reader.metadata.title == "AI draft report, not reviewed"
    assert reader.metadata.subject == PICTURE_BANNER
    assert reader.metadata.creation_date == CONTEXT.created_at.replace(microsecond=0)
    assert reader.trailer["/Root"]["/Lang"] == "en"


def test_all_fonts_that_hold_text_are_embedded(case):
    fonts = {
        font["/BaseFont"]: "/FontDescriptor" in font and "/FontFile2" in font["/FontDescriptor"]
        for page in reader_of(case).pages
        for font in (f.get_object() for f in page["/Resources"]["/Font"].values())
    }
    assert fonts.pop("/Helvetica", None) in {None, False}  # declared by the library and not used
    assert fonts
    assert all(fonts.values())


@pytest.mark.parametrize(
    "name",
    [
        "Иванов^Пётр",
        "Παπαδόπουλος^Νίκος",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ],
)
def test_names_in_other_scripts_can_be_selected(case, name):
    for header in case.series:
        header.SpecificCharacterSet = "ISO_IR 192"
        header.PatientName = PersonName(name)
    words = words_of(reader_of(case))
    for part in name.replace("=", "^").split("^"):
        assert part in words


@pytest.mark.parametrize("name", ["", "^^^^", "<b>A</b>^&amp;", "देव^राम", "A" * 58, "\x1b$B", "=="])
def test_no_name_breaks_the_report(case, name):
    for header in case.series:
        header.SpecificCharacterSet = "ISO_IR 192"
        header.PatientName = name
        header.StudyDescription = header.SeriesDescription = "<para>" + name
    reader_of(case)


def test_numbers_models_and_provenance_are_told(case):
    words = words_of(reader_of(case))
    assert "1.2 mL; 11 mm x 7.2 mm" in words
    assert "0.93 (high)" in words
    assert MODEL.weights_sha256[:16] in words
    assert f"{MODEL.name} {MODEL.version}" in words
    assert "not available; flair stood in for it" in words
    assert "no language model took part" in words


def test_a_language_model_is_named(case):
    provenance = TextProvenance(author=Author.LANGUAGE_MODEL, remark="Checked.", language_model="tiny 1.0")
    words = words_of(reader_of(case, replace(draft_of(case), provenance=provenance)))
    assert "worded by a language model" in words
    assert "tiny 1.0" in words


def test_limits_and_licence_of_the_models_are_told(case):
    model = replace(MODEL, licence="Apache-2.0")
    notes = {MODEL.name: note_model("Tests alone.", ["Not for  children.", {"fails": "on phantoms"}])}
    assert notes[MODEL.name] == ModelNotes(
        intended_use="Tests alone.", limits=("Not for children.", "fails: on phantoms")
    )
    words = words_of(reader_of(case.saying(model=model), document=DocumentExtras(notes=notes)))
    for said in ("Apache-2.0", "Intended use: Tests alone.", "Not for children.", "fails: on phantoms"):
        assert said in words


def test_pictures_are_those_of_the_other_results():
    case = make_detection_case()
    objects = results_of(case)
    shown = [(d.Columns, d.Rows) for d in by_kind(objects).values() if d.SOPClassUID.endswith(".1.7")]
    images = [image for page in reader_of(case).pages for image in page.images]
    assert sorted(Image.open(io.BytesIO(image.data)).size for image in images) == sorted(shown)


def with_background(case):
    return replace(case, reading=replace(case.reading, background=make_case().reading.background))


@pytest.mark.parametrize("make", [make_head_ct_case, make_fusion_case])
def test_heat_on_slices_is_shown_beside_the_plain_slices(make):
    case = with_background(make())
    heatmap = case.reading.heatmaps[0]
    drawn = draw_slice_heat(case.reading, heatmap, case.series)
    assert drawn is not None
    assert set(drawn.frames) <= set(heatmap.frames)
    plain, heated = (drawn.picture[130:420, left : left + 300].astype(int) for left in (30, 372))
    assert (plain.max(axis=2) - plain.min(axis=2)).mean() < (heated.max(axis=2) - heated.min(axis=2)).mean()
    assert len([i for page in reader_of(case).pages for i in page.images]) == 1


def test_heat_on_another_series_than_the_pixels_has_no_picture():
    case = with_background(make_fusion_case())
    assert draw_slice_heat(case.reading, case.reading.heatmaps[1], case.series) is None


def test_what_changed_has_a_table_with_the_date_and_the_text_has_none(case):
    comparison = compared(case)
    text = draft_report([case.analysis], comparison=describe_changes(comparison.changes))
    words = words_of(reader_of(case, text, DocumentExtras(comparisons=(comparison,))))
    assert "Study of 2025-10-21, 73 days earlier" in words
    assert "+100 %" in words
    assert "larger" in words
    assert "2025" not in text.plain
    assert "73 days earlier" in text.section(SectionName.COMPARISON).text


def test_a_report_that_was_compared_has_another_name(case):
    compared_with = DocumentExtras(comparisons=(compared(case),))
    plain, other = (
        by_kind(encode_results([case.reading], case.sources, draft_of(case), CONTEXT, document))
        for document in (DocumentExtras(), compared_with)
    )
    for kind, dataset in plain.items():
        is_same = dataset.SOPInstanceUID == other[kind].SOPInstanceUID
        assert is_same is (kind not in {ResultKind.NARRATIVE, ResultKind.PDF})


def test_letter_paper(case):
    page = reader_of(case, document=DocumentExtras(size=PageSize.LETTER)).pages[0]
    assert (float(page.mediabox.width), float(page.mediabox.height)) == (612.0, 792.0)


def test_a_site_may_want_no_pdf(case):
    objects = encode_results([case.reading], case.sources, draft_of(case), CONTEXT, None)
    assert ResultKind.PDF not in {o.kind for o in objects}


def test_the_same_run_gives_the_same_bytes_and_another_time_others(case):
    once, again = (write_part10(pdf_of(make_case())) for _ in range(2))
    assert once == again
    later = replace(CONTEXT, created_at=CONTEXT.created_at + timedelta(hours=1))
    assert read_pdf(pdf_of(replace(case, context=later))) != read_pdf(pdf_of(case))


@pytest.mark.slow
def test_another_process_another_day_gives_the_same_bytes():
    code = (
        "import hashlib; from reporting_cases import *; from reporting.pdf import read_pdf; "
        "print(hashlib.sha256(read_pdf(by_kind(results_of(make_detection_case()))[ResultKind.PDF])).hexdigest())"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "100000")
    }
    assert len(digests) == 1


def test_the_object_is_an_unverified_encapsulated_pdf_of_its_study(case):
    document = pdf_of(case)
    assert document.SOPClassUID == EncapsulatedPDFStorage
    assert (document.Modality, document.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert (document.VerificationFlag, document.BurnedInAnnotation) == ("UNVERIFIED", "YES")
    assert document.ConceptNameCodeSequence[0].CodeValue == "18748-4"
    assert "HL7InstanceIdentifier" not in document
    assert [i.ReferencedSOPInstanceUID for i in document.SourceInstanceSequence] == [
        header.SOPInstanceUID for header in case.series
    ]
    assert len(document.EncapsulatedDocument) % 2 == 0
    assert read_pdf(document).rstrip().endswith(b"%%EOF")


def test_a_later_version_names_the_one_before(case):
    predecessor = next(o for o in results_of(case) if o.kind is ResultKind.PDF).as_predecessor()
    later = replace(CONTEXT, inputs_digest="0" * 64, predecessor=(predecessor,))
    document = pdf_of(replace(case, context=later))
    series = document.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == predecessor.sop_instance_uid
    assert violations_of(replace(case, context=later)) == ()


def test_a_refusal_is_a_report_too():
    words = words_of(reader_of(make_refused_case()))
    assert "No answer was given" in words
    assert BANNER in words


def test_long_lists_run_over_pages(case):
    findings = tuple(
        replace(case.analysis.findings[0], finding_id=f"F{n}", measurements=(volume,), segment_number=n)
        for n in range(1, 90)
        for volume in [Measurement(quantity=Quantity.VOLUME, value=n / 10, unit="mL")]
    )
    objects = encode_results(
        [replace(case.reading, mask=None, analysis=replace(case.analysis, findings=findings))],
        case.sources,
        draft_report([replace(case.analysis, findings=findings)]),
        CONTEXT,
    )
    pages = read_pages(read_pdf(by_kind(objects)[ResultKind.PDF]))
    assert len(pages) > 4
    assert all(REQUIRED_PHRASE.encode() in page for page in pages)


def test_the_gate_reads_what_a_pdf_library_reads(case):
    file = read_pdf(pdf_of(case))
    assert len(read_pages(file)) == len(PdfReader(io.BytesIO(file)).pages)
    assert read_pages(file[:-20]) == []
    assert read_pages(b"") == []


def test_created_at_is_said(case):
    assert datetime(2026, 3, 4, 5, 6, tzinfo=UTC).strftime("%Y-%m-%d %H:%M UTC") in words_of(reader_of(case))
