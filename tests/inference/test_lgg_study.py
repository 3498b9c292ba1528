from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from lgg_study import pack_lgg_patient

from inference.volume import read_volume

LGG = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "lgg"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (LGG / "index.csv").is_file(), reason="../shared/data/lgg is not there"),
]

WITHOUT_POST = "TCGA_FG_7634_20000128"


@pytest.fixture(scope="module")
def study():
    return pack_lgg_patient(LGG, WITHOUT_POST, shuffle=True)


def test_a_sequence_that_was_not_acquired_is_left_out(study):
    assert set(study.series) == {"pre", "flair"}
    np.testing.assert_array_equal(study.channels[2], study.channels[1])


def test_the_packed_pixels_read_back_foot_to_head(study):
    for channel, role in enumerate(("pre", "flair")):
        volume = read_volume(study.series[role])
        np.testing.assert_array_equal(volume.array, study.channels[channel])
        assert volume.spacing_mm == pytest.approx((0.9375, 0.9375, 5.0))


def test_uids_follow_from_patient_and_seed(study):
    again = pack_lgg_patient(LGG, WITHOUT_POST)
    other = pack_lgg_patient(LGG, WITHOUT_POST, seed=1)
    uids = [{d.SOPInstanceUID for d in packed.datasets} for packed in (study, again, other)]
    assert uids[0] == uids[1]
    assert not uids[0] & uids[2]


@pytest.mark.validators
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(study, tmp_path):
    for role, images in study.series.items():
        images[0].save_as(tmp_path / role, enforce_file_format=True)
        checked = subprocess.run(
            ["dciodvfy", "-new", str(tmp_path / role)], capture_output=True, text=True, check=False
        )
        assert checked.stderr.strip() == "MRImage"
