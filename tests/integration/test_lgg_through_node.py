"""A real patient through the whole node gives the mask of the network run directly."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import torch
from integration_rig import ended_runs, send_study, wait_until
from lgg_study import pack_lgg_patient

from dicom_node.ledger import RunState
from inference.packages import discover
from inference.preparation import prepare_slices, stack_context
from inference.runner import CPU_BATCH_SIZE
from inference.segmentation import find_regions
from inference.training.evaluation import predict_probabilities
from integration.app import Node
from integration.demo import embedded_settings

ROOT = Path(__file__).resolve().parents[2]
LGG = ROOT.parent / "shared" / "data" / "lgg"
MODEL = "brain-tumour-lgg"

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # DBOS's own threads warn at shutdown
    pytest.mark.skipif(not (LGG / "index.csv").is_file(), reason="../shared/data/lgg is not there"),
]


@pytest.mark.parametrize("patient", ["TCGA_CS_5395_19981004", "TCGA_FG_7634_20000128"])
def test_the_segmentation_equals_the_network_run_directly(patient: str, tmp_path: Path) -> None:
    packed = pack_lgg_patient(LGG, patient, shuffle=True)
    package = discover(ROOT / "models").package(MODEL)
    network = package.build().eval().to(memory_format=torch.channels_last)
    slices = stack_context(prepare_slices(packed.channels), package.card.input.context)
    probabilities = predict_probabilities(
        network, slices, batch_size=CPU_BATCH_SIZE, mirror=package.card.test_time_mirror
    )[:, None]
    direct = np.any(
        [region.mask for region in find_regions(package, np.moveaxis(probabilities, 1, 0))], axis=0
    )

    with Node(embedded_settings(tmp_path)) as node:
        node.start()
        send_study(node, list(packed.datasets), tmp_path / "study")
        wait_until(lambda: len(ended_runs(node)) == 1, timeout_s=240)
        row = node.ledger.run(ended_runs(node)[0])
        assert row.state is RunState.DONE, row.reason
    segmentation = hd.seg.segread(next((tmp_path / "results").rglob("segmentation-*.dcm")))
    order = [str(d.SOPInstanceUID) for d in sorted(packed.series["flair"], key=_height)]
    sent_back = segmentation.get_pixels_by_source_instance(order, assert_missing_frames_are_empty=True).any(
        axis=-1
    )
    np.testing.assert_array_equal(sent_back, direct)
    assert direct.any()


def _height(dataset: pydicom.Dataset) -> float:
    return float(dataset.ImagePositionPatient[2])
