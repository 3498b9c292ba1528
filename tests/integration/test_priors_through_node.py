"""Two studies of one patient through a whole node: what is compared, and what is not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from integration_rig import embedded_settings, ended_runs, send_study, wait_until
from pydicom.dataset import Dataset
from pypdf import PdfReader

from dicom_node.ledger import RunRow, RunState
from dicom_node.phantom import DEFAULT_LESION, Lesion, brain_mr_study
from dicom_node.study import derive_study_key
from integration.app import Node
from integration.priors import load_comparisons
from integration.settings import ReportSection
from reporting.comparison import Course, Dimension
from reporting.pdf import read_pdf
from reporting.text import SectionName

pytestmark = pytest.mark.filterwarnings("ignore")  # DBOS's own threads warn at shutdown

EARLIER = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
LATER = EARLIER + timedelta(days=73)
ROOT = Path(__file__).resolve().parents[2]


def brain(
    seed: int, at: datetime, patient: str = "PHANTOM-1", lesion: Lesion = DEFAULT_LESION, **size: int
) -> list[Dataset]:
    shape = {"matrix": 64, "slices": 6} | size
    return list(brain_mr_study(seed, lesion=lesion, patient_id=patient, acquired_at=at, **shape).datasets)


class Reader:
    """A node and the folder in which its results land."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node, self.folder = node, folder

    def read(self, study: list[Dataset]) -> RunRow:
        ended = len(ended_runs(self.node))
        send_study(self.node, study, self.folder / study[0].StudyInstanceUID)
        wait_until(lambda: len(ended_runs(self.node)) == ended + 1, timeout_s=280)
        row = self.run_of(study)
        assert row.state is RunState.DONE, row.reason
        return row

    def run_of(self, study: list[Dataset]) -> RunRow:
        key = derive_study_key(study[0].StudyInstanceUID, self.node.site_key)
        return self.node.ledger.runs_of(key)[-1]

    def text(self, row: RunRow) -> dict[str, str]:
        sections = json.loads((self.node.pipeline.folder(row.run.run_id).path / "text.json").read_bytes())
        return {
            section["name"]: " ".join(sentence["text"] for sentence in section["sentences"])
            for section in sections["sections"]
        }

    def objects(self, row: RunRow) -> dict[str, Dataset]:
        return {
            output.kind: pydicom.dcmread(self.node.settings.data_dir / output.path)
            for output in self.node.ledger.objects_of(row.run.run_id)
            if output.sop_class_uid
        }


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with Node(embedded_settings(tmp_path)) as node:
        node.start()
        yield Reader(node, tmp_path)


def test_a_study_is_compared_with_the_earlier_one_of_its_patient(reader: Reader) -> None:
    first = reader.read(brain(1, EARLIER))
    second = reader.read(brain(2, LATER))
    assert SectionName.COMPARISON not in reader.text(first)
    said = reader.text(second)[SectionName.COMPARISON]
    assert said.startswith("Compared with the study of 73 days earlier")
    (comparison,) = load_comparisons(reader.node.pipeline.folder(second.run.run_id))
    assert comparison.prior.run_id == first.run.run_id

    objects = reader.objects(second)
    narrative = objects["narrative"]
    headings = [item.ConceptNameCodeSequence[0].CodeMeaning for item in narrative.ContentSequence]
    assert "Previous Findings" in headings
    pages = PdfReader(io.BytesIO(read_pdf(objects["pdf"]))).pages
    words = " ".join(" ".join(page.extract_text() for page in pages).split())
    assert "Compared with the study of 73 days earlier" in words
    if comparison.changes:
        assert "Study of 2026-01-15, 73 days earlier" in words
    assert "2026-01-15" not in json.dumps(reader.text(second))


def test_a_site_may_want_neither_comparison_nor_pdf(tmp_path: Path) -> None:
    report = ReportSection(compare_priors=False, pdf=False)
    with Node(embedded_settings(tmp_path, report=report)) as node:
        node.start()
        reader = Reader(node, tmp_path)
        reader.read(brain(1, EARLIER))
        second = reader.read(brain(2, LATER))
        assert SectionName.COMPARISON not in reader.text(second)
        assert "pdf" not in reader.objects(second)


@pytest.mark.slow
def test_growth_of_a_drawn_lesion_is_measured_by_the_shipped_network(tmp_path: Path) -> None:
    grown = replace(DEFAULT_LESION, diameter_mm=1.25 * DEFAULT_LESION.diameter_mm)
    with Node(embedded_settings(tmp_path, models_dir=ROOT / "models", rules_file=None)) as node:
        node.start()
        reader = Reader(node, tmp_path)
        reader.read(brain(1, EARLIER, matrix=256, slices=24))
        row = reader.read(brain(1, LATER, lesion=grown, matrix=256, slices=24))
        (comparison,) = load_comparisons(node.pipeline.folder(row.run.run_id))
        change = next(c for c in comparison.changes if c.now is not None and c.before is not None)
        size = change.sizes[0]
        assert size.dimension is Dimension.VOLUME
        assert change.course is Course.INCREASED
        assert 1.25**3 / 1.5 < size.now / size.before < 1.25**3 * 1.5
        assert "grew from" in reader.text(row)[SectionName.COMPARISON]
