"""A third party's 3-D network, installed as a package, reads a real T1 volume through the whole node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import torch
import yaml
from integration_rig import embedded_settings as rig_settings
from integration_rig import ended_runs, send_study, wait_until
from meshnet_study import MESHNET, NAME, NETWORK, pack_t1, read_t1, write_meshnet_package
from tfjs import convert_meshnet

from dicom_node.ledger import RunState
from integration.app import Node

PLAUSIBLE_ML = (900.0, 1800.0)
RULES = f"""
rules:
  - name: brain volumes
    when: {{modality: MR}}
    models: [{NAME}]
fallback: {{models: []}}
"""

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore"),  # DBOS's own threads warn at shutdown
    pytest.mark.skipif(not MESHNET.is_dir(), reason="../shared/data/weights/meshnet is not there"),
]


def direct_labels(volume: np.ndarray) -> np.ndarray:
    """Return the network's own answer, (256, 256, 256): 0 background, 1 white, 2 grey."""
    scaled = (volume - volume.min()) / (volume.max() - volume.min())
    with torch.inference_mode():
        output = convert_meshnet(MESHNET / NETWORK)(torch.from_numpy(scaled)[None, None])
    return output[0].argmax(dim=0).numpy().astype(np.uint8)


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_brain_volumes_of_a_foreign_network_reach_seg_sr_and_fhir(form: str, tmp_path: Path) -> None:
    settings = rig_settings(tmp_path, models_dir=tmp_path / "installed")
    settings.rules_file.write_text(RULES)
    config = tmp_path / "preread.yaml"
    config.write_text(
        yaml.safe_dump({"models_dir": str(settings.models_dir), "data_dir": str(settings.data_dir)})
    )
    given = write_meshnet_package(tmp_path / "given", form)
    command = [sys.executable, "-m", "integration.cli", "models", "add", str(given), "--config", str(config)]
    added = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert added.returncode == 0, added.stderr
    volume = read_t1()

    with Node(settings) as node:
        node.start()
        datasets = pack_t1(volume)
        send_study(node, datasets, tmp_path / "study")
        wait_until(lambda: len(ended_runs(node)) == 1, timeout_s=900)
        row = node.ledger.run(ended_runs(node)[0])
        assert row.state is RunState.DONE, row.reason

    results = tmp_path / "results"
    segmentation = hd.seg.segread(next(results.rglob("segmentation-*.dcm")))
    order = [str(dataset.SOPInstanceUID) for dataset in datasets]
    sent_back = segmentation.get_pixels_by_source_instance(
        order, assert_missing_frames_are_empty=True, combine_segments=True
    )
    expected = direct_labels(volume).transpose(2, 1, 0)
    agreement = (
        2 * (sent_back == expected)[expected > 0].sum() / ((sent_back > 0).sum() + (expected > 0).sum())
    )
    assert agreement > 0.99, "all but the crumbs that are no part of the largest piece"

    fhir = json.loads(next(results.rglob("*.json")).read_text())
    volumes = volumes_in(fhir)
    assert len(volumes) == 2
    assert PLAUSIBLE_ML[0] < sum(volumes) < PLAUSIBLE_ML[1]
    assert sum(volumes) == pytest.approx((sent_back > 0).sum() / 1000, abs=2.0)
    reports = [pydicom.dcmread(path) for path in results.rglob("*.dcm")]
    measured = [v for report in reports if report.Modality == "SR" for v in numbers_in(report, "cm3")]
    for value in volumes:
        assert any(abs(value - other) < 1.0 for other in measured)


def volumes_in(fhir: object) -> list[float]:
    """Return every quantity in millilitres."""
    if isinstance(fhir, list):
        return [value for item in fhir for value in volumes_in(item)]
    if not isinstance(fhir, dict):
        return []
    if fhir.get("code") == "mL" and "value" in fhir:
        return [float(fhir["value"])]
    return [value for item in fhir.values() for value in volumes_in(item)]


def numbers_in(dataset: pydicom.Dataset, unit: str) -> list[float]:
    """Return every number of a report in a UCUM unit."""
    found = []
    for item in dataset.get("ContentSequence", []):
        found += [
            float(value.NumericValue)
            for value in item.get("MeasuredValueSequence", [])
            if value.MeasurementUnitsCodeSequence[0].CodeValue == unit
        ]
        found += numbers_in(item, unit)
    return found
