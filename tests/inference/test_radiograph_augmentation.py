from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.radiograph_preparation import BLACK
from inference.training.radiograph_augmentation import UNCHANGED, View, draw_view, see, see_boxes

BOX = torch.tensor([[100.0, 150.0, 300.0, 250.0]])
LABEL = torch.tensor([3])


def film() -> torch.Tensor:
    image = torch.full((1, 512, 512), -1.5)
    image[:, 150:250, 100:300] = 1.5
    return image


@pytest.mark.parametrize("seed", range(6))
def test_a_box_stays_on_what_it_marks(seed: int) -> None:
    view = draw_view(np.random.default_rng(seed))
    seen = see(film(), view, 384)[0]
    ((left, top, right, bottom),) = see_boxes(BOX, LABEL, view, 512, 384)[0].tolist()
    rows, columns = torch.nonzero(seen > (seen.max() + seen.mean()) / 2, as_tuple=True)
    assert (int(columns.min()), int(rows.min())) == pytest.approx((left, top), abs=1.5)
    assert (int(columns.max()) + 1, int(rows.max()) + 1) == pytest.approx((right, bottom), abs=1.5)


def test_an_unchanged_view_is_the_film_itself() -> None:
    torch.testing.assert_close(see(film(), UNCHANGED, 512), film(), atol=1e-4, rtol=0)
    boxes, labels = see_boxes(BOX, LABEL, UNCHANGED, 512, 512)
    torch.testing.assert_close(boxes, BOX)
    assert labels.tolist() == [3]


def test_a_box_out_of_view_is_dropped_and_what_lies_beyond_the_film_is_black() -> None:
    aside = View(shift=(1.2, 0.0))
    assert len(see_boxes(BOX, LABEL, aside, 512, 512)[0]) == 0
    assert (see(film(), aside, 64)[0, :, -20:] == BLACK).all()


def test_no_box_stays_no_box() -> None:
    boxes, labels = see_boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), UNCHANGED, 512, 64)
    assert boxes.shape == (0, 4)
    assert labels.shape == (0,)
