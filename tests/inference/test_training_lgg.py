"""The data set, its patient split, and the recipe on a handful of slices."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.training.augmentation import Crop, MissingSequences, SliceAugmenter
from inference.training.lgg import (
    FLAIR,
    LggCase,
    prepare_case,
    read_cases,
    read_institutions,
    split_patients,
)
from inference.training.segmentation import SegmentationLoss, Stage, TrainingConfig, train

DATA = Path(__file__).parents[3] / "shared" / "data" / "lgg"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs the LGG data set in ../shared/data/lgg")

WHOLE = Crop(matrix=64, span_px=256)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep these small tensors off the thread pool, which costs more than it gives on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten made-up patients of four slices; the two middle slices hold a bright square."""
    root = tmp_path_factory.mktemp("lgg")
    draws = np.random.default_rng(0)
    fields = ["patient_id", "institution", "slice", "image", "mask"]
    with (root / "index.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fields)
        writer.writeheader()
        for patient in range(10):
            for number in (3, 1, 4, 2):
                stem = f"P{patient}_{number}"
                image = draws.integers(0, 8, (256, 256, 3))
                image[40:220, 50:210] += 60
                mask = np.zeros((256, 256), dtype=np.bool_)
                if number in (2, 3):
                    mask[100:140, 80 + 2 * patient : 130 + 2 * patient] = True
                    image[mask, FLAIR] += 100
                Image.fromarray(image.astype(np.uint8)).save(root / f"{stem}.png")
                Image.fromarray(mask).save(root / f"{stem}_mask.png")
                institution = "AB"[patient % 2]
                row = (f"P{patient}", institution, number, f"{stem}.png", f"{stem}_mask.png")
                writer.writerow(dict(zip(fields, row, strict=True)))
    return root


institution_maps = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=6), st.sampled_from(["CS", "DU", "HT"]), min_size=1
)


@settings(deadline=None)
@given(institutions=institution_maps, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_no_patient_is_in_both_parts_and_none_is_lost(
    institutions: dict[str, str], fraction: float, seed: int
) -> None:
    split = split_patients(institutions, fraction, seed)
    assert set(split.training).isdisjoint(split.validation)
    assert sorted(split.training + split.validation) == sorted(institutions)
    for institution, count in Counter(institutions.values()).items():
        kept = sum(institutions[patient] == institution for patient in split.validation)
        assert kept == round(count * fraction)


@given(institutions=institution_maps, draws=st.randoms())
def test_the_split_does_not_depend_on_the_order_of_the_index(institutions: dict[str, str], draws) -> None:
    shuffled = list(institutions.items())
    draws.shuffle(shuffled)
    assert split_patients(dict(shuffled)) == split_patients(institutions)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_a_share_outside_zero_to_one_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        split_patients({"a": "CS"}, fraction)


def test_slices_come_in_order_with_their_masks(small_set: Path) -> None:
    cases = read_cases(small_set)
    assert [case.patient_id for case in cases] == [f"P{patient}" for patient in range(10)]
    assert cases[0].images.shape == (4, 256, 256, 3)
    assert cases[0].masks.any(axis=(1, 2)).tolist() == [False, True, True, False]
    assert cases[3].images[..., FLAIR][cases[3].masks].min() > 150


def test_the_cache_holds_what_was_decoded(small_set: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.npz"
    decoded = read_cases(small_set, ["P4"])
    for cached in (read_cases(small_set, ["P4"], cache), read_cases(small_set, ["P4"], cache)):
        np.testing.assert_array_equal(cached[0].images, decoded[0].images)
        np.testing.assert_array_equal(cached[0].masks, decoded[0].masks)


def test_an_unknown_patient_is_refused(small_set: Path) -> None:
    with pytest.raises(ValueError, match="not in the data set"):
        read_cases(small_set, ["P4", "P99"])


def test_flair_alone_means_three_equal_channels(small_set: Path) -> None:
    case = read_cases(small_set, ["P0"])[0]
    alone, full = prepare_case(case, flair_alone=True), prepare_case(case)
    assert alone.shape == full.shape == (4, 3, 256, 256)
    for channel in range(3):
        np.testing.assert_array_equal(alone[:, channel], full[:, FLAIR])


def batch(case: LggCase) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(prepare_case(case)), torch.from_numpy(case.masks[:, None]).float()


def augmenter(*, all_others: float = 0.0, each: float = 0.0, seed: int = 5) -> SliceAugmenter:
    missing = MissingSequences(flair=FLAIR, all_others=all_others, each=each)
    return SliceAugmenter(missing, torch.Generator().manual_seed(seed))


def test_masks_follow_their_images(small_set: Path) -> None:
    images, masks = batch(read_cases(small_set, ["P5"])[0])
    for seed in range(5):
        drawn, targets = augmenter(seed=seed)(images, masks, WHOLE)
        assert set(targets.unique().tolist()) <= {0.0, 1.0}
        for image, target in zip(drawn[1:3, FLAIR], targets[1:3, 0] > 0, strict=True):
            assert image[target].mean() > image[~target].mean() + 0.5


def test_one_seed_draws_one_view(small_set: Path) -> None:
    images, masks = batch(read_cases(small_set, ["P5"])[0])
    first, again = augmenter()(images, masks, WHOLE), augmenter()(images, masks, WHOLE)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], augmenter(seed=6)(images, masks, WHOLE)[0])


def test_missing_sequences_are_exact_copies_of_flair(small_set: Path) -> None:
    images, masks = batch(read_cases(small_set, ["P5"])[0])
    drawn, _ = augmenter(all_others=1.0)(images, masks, WHOLE)
    assert torch.equal(drawn[:, 0], drawn[:, FLAIR])
    assert torch.equal(drawn[:, 2], drawn[:, FLAIR])
    drawn, _ = augmenter()(images, masks, WHOLE)
    assert not torch.equal(drawn[:, 0], drawn[:, FLAIR])


def test_loss_falls_towards_the_mask() -> None:
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, 0, 4:8, 4:8] = 1.0
    score = SegmentationLoss()
    right, unsure, wrong = (score(gain * (2.0 * mask - 1.0), mask).item() for gain in (20.0, 0.0, -20.0))
    assert right < 0.01 < unsure < wrong


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = (
        Stage(epochs=1, crop=Crop(matrix=32, span_px=256)),
        Stage(epochs=1, crop=Crop(matrix=64, span_px=256)),
    )
    config = TrainingConfig(
        network="attention_res_unet",
        arguments={"channels": [4, 8]},
        context=0,
        stages=stages,
        batch_size=4,
    )
    unbroken = train(config, small_set, tmp_path / "unbroken").read_bytes()
    broken = tmp_path / "broken"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inference.training.segmentation._validate", _fail)
        with pytest.raises(OSError, match="disk"):
            train(config, small_set, broken)
    assert not (broken / "best.safetensors").exists()
    assert train(config, small_set, broken, resume=True).read_bytes() == unbroken

    split = json.loads((broken / "split.json").read_text())
    assert set(split["training"]).isdisjoint(split["validation"])
    assert "resumed after epoch 1" in capsys.readouterr().out


def _fail(*_: object) -> float:
    raise OSError("disk full")


@needs_data
@pytest.mark.data
def test_the_real_split_is_the_one_in_the_card() -> None:
    institutions = read_institutions(DATA)
    split = split_patients(institutions)
    assert (len(split.training), len(split.validation)) == (66, 16)
    by_institution = Counter(institutions[patient] for patient in split.validation)
    assert by_institution == {"DU": 6, "HT": 5, "CS": 3, "FG": 2}


@needs_data
@pytest.mark.data
def test_a_real_patient_is_read_and_prepared() -> None:
    case = read_cases(DATA, ["TCGA_CS_4941_19960909"])[0]
    assert case.masks.shape == case.images.shape[:3]
    assert case.masks.any()
    prepared = prepare_case(case)
    lesion = prepared[:, FLAIR][case.masks].mean()
    assert lesion > np.median(prepared[:, FLAIR])
