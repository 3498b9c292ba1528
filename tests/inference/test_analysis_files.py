from __future__ import annotations

import string
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inference.analysis_files import AnalysisFileError, load_analysis, load_outcome, save_outcome
from inference.findings import (
    Analysis,
    Diameter,
    Finding,
    FrameReference,
    Heatmap,
    ImagePoint,
    Laterality,
    Mask,
    Measurement,
    ModelIdentity,
    Outcome,
    Presence,
    Quantity,
    SeriesInput,
)

texts = st.text(max_size=20)
names = st.text(string.ascii_lowercase, min_size=1, max_size=8)
numbers = st.floats(allow_nan=False)
frames = st.builds(
    FrameReference, sop_instance_uid=texts, frame_number=st.none() | st.integers(min_value=1, max_value=10**6)
)
points = st.builds(ImagePoint, column=numbers, row=numbers)
lines = st.builds(Diameter, length_mm=numbers, frame=frames, start=points, end=points)
measurements = st.builds(Measurement, quantity=st.sampled_from(Quantity), value=numbers, unit=texts)
findings = st.builds(
    Finding,
    finding_id=texts,
    concept=texts,
    site=texts,
    presence=st.sampled_from(Presence),
    laterality=st.none() | st.sampled_from(Laterality),
    segment_number=st.none() | st.integers(1, 255),
    confidence=st.none() | numbers,
    measurements=st.lists(measurements, max_size=3).map(tuple),
    long_axis=st.none() | lines,
    perpendicular_axis=st.none() | lines,
    key_frame=st.none() | frames,
)
models = st.builds(
    ModelIdentity, name=names, version=texts, weights_sha256=texts, task=texts, title=texts, licence=texts
)
inputs = st.builds(SeriesInput, role=texts, series_uid=texts, frames=st.lists(frames, max_size=3).map(tuple))
analyses = st.builds(
    Analysis,
    model=models,
    study_uid=texts,
    inputs=st.lists(inputs, max_size=3).map(tuple),
    findings=st.lists(findings, max_size=3).map(tuple),
    substitutions=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    notes=st.lists(texts, max_size=2).map(tuple),
)
masks = st.builds(
    Mask,
    labels=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)),
    series_uid=texts,
    frames=st.lists(frames, max_size=5).map(tuple),
)

heatmaps = st.builds(
    Heatmap,
    values=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
        elements=st.sampled_from([0, 0.25, 1]),
    ),
    series_uid=texts,
    frames=st.lists(frames, max_size=3).map(tuple),
    answer=st.just("F1"),
)

EXAMPLE = Outcome(
    analysis=Analysis(
        model=ModelIdentity(name="m", version="1", weights_sha256="0", task="segmentation", title="M"),
        study_uid="1.2",
        inputs=(),
        findings=(),
    ),
    mask=Mask(labels=np.zeros((2, 3, 4), dtype=np.uint8), series_uid="1.3", frames=()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(analysis=analyses, mask=st.none() | masks, maps=st.lists(heatmaps, max_size=1).map(tuple))
def test_what_is_read_equals_what_was_written(tmp_path, analysis, mask, maps):
    loaded = load_outcome(save_outcome(tmp_path, Outcome(analysis=analysis, mask=mask, heatmaps=maps)))
    assert loaded.analysis == analysis
    assert (loaded.mask is None) == (mask is None)
    if mask is not None and loaded.mask is not None:
        np.testing.assert_array_equal(loaded.mask.labels, mask.labels)
        assert loaded.mask.labels.dtype == np.uint8
        assert (loaded.mask.series_uid, loaded.mask.frames) == (mask.series_uid, mask.frames)
    for kept, wanted in zip(loaded.heatmaps, maps, strict=True):
        np.testing.assert_array_equal(kept.values, wanted.values)
        assert (kept.series_uid, kept.frames, kept.answer) == (wanted.series_uid, wanted.frames, "F1")


def test_the_same_analysis_gives_the_same_bytes(tmp_path):
    first, second = (save_outcome(tmp_path / name, EXAMPLE) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a" / "mask-m.npz").read_bytes() == (tmp_path / "b" / "mask-m.npz").read_bytes()


def test_no_partial_file_stays(tmp_path):
    save_outcome(tmp_path, EXAMPLE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["analysis-m.json", "mask-m.npz"]


def test_a_mask_of_another_analysis_is_noticed(tmp_path):
    path = save_outcome(tmp_path, EXAMPLE)
    other = replace(EXAMPLE, mask=replace(EXAMPLE.mask, labels=np.ones((2, 3, 4), dtype=np.uint8)))
    save_outcome(tmp_path / "other", other)
    (tmp_path / "other" / "mask-m.npz").replace(tmp_path / "mask-m.npz")
    with pytest.raises(AnalysisFileError, match="not the one"):
        load_outcome(path)
    assert load_analysis(path) == EXAMPLE.analysis


@pytest.mark.parametrize("damage", ["missing", "truncated", "unknown field", "no mask"])
def test_damage_is_noticed(tmp_path, damage):
    path = save_outcome(tmp_path, EXAMPLE)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "unknown field":
        path.write_bytes(path.read_bytes().replace(b'"format"', b'"other": 1, "format"', 1))
    else:
        (tmp_path / "mask-m.npz").unlink()
    with pytest.raises(AnalysisFileError, match="run the model again"):
        load_outcome(path)
