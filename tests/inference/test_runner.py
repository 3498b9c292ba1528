from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from random_model_package import write_random_package

from dicom_node.errors import PermanentError, TransientError
from inference.packages import load_package
from inference.runner import DeviceMemoryError, InvalidBatchError, Runner, predict_in_batches


@pytest.fixture
def package(tmp_path):
    return load_package(write_random_package(tmp_path))


@pytest.fixture
def batch():
    return np.random.default_rng(0).normal(size=(7, 3, 64, 64)).astype(np.float32)


def test_probabilities_are_the_sigmoid_of_the_network(package, batch):
    prediction = Runner("cpu").predict(package, batch)
    with torch.inference_mode():
        expected = torch.sigmoid(package.build()(torch.from_numpy(batch))).numpy()
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)
    assert prediction.probabilities.shape == (7, 1, 64, 64)
    assert prediction.probabilities.dtype == np.float32


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_slice_is_the_same_bit_for_bit_whatever_shares_its_batch_on_the_cpu(package, batch, count):
    runner = Runner("cpu")
    expected = runner.predict(package, batch).probabilities
    np.testing.assert_array_equal(runner.predict(package, batch[:count]).probabilities, expected[:count])
    np.testing.assert_array_equal(runner.predict(package, batch[-count:]).probabilities, expected[-count:])


def test_the_order_of_the_slices_does_not_change_one_bit_on_the_cpu(package, batch):
    runner = Runner("cpu")
    forward = runner.predict(package, batch).probabilities
    backward = runner.predict(package, np.ascontiguousarray(batch[::-1])).probabilities
    np.testing.assert_array_equal(backward[::-1], forward)


def test_progress_ends_at_the_total(package, batch):
    calls = []
    Runner("cpu").predict(package, batch, lambda done, total: calls.append((done, total)))
    assert calls == [(4, 7), (7, 7)]


def test_statistics_tell_the_throughput(package, batch):
    seconds = iter((10.0, 12.0))
    observed = []
    runner = Runner("cpu", clock=lambda: next(seconds), observer=lambda *run: observed.append(run))
    statistics = runner.predict(package, batch).statistics
    assert observed == [(package.identity, statistics)]
    assert statistics.images_per_second == pytest.approx(3.5)
    assert statistics.device == "cpu"


class SmallMemory:
    """Doubles images as long as there are not too many of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.seen: list[int] = []

    def __call__(self, images):
        self.seen.append(len(images))
        return None if len(images) > self.capacity else images * 2


def test_batches_are_halved_until_they_fit(batch):
    forward = SmallMemory(2)
    predicted, size = predict_in_batches(forward, batch, 16, is_fixed=False)
    assert forward.seen == [7, 7, 4, 2, 2, 2, 1]
    assert size == 2
    np.testing.assert_array_equal(predicted, batch * 2)


@pytest.mark.parametrize(("capacity", "is_fixed"), [(0, False), (3, True)])
def test_no_room_for_the_smallest_batch_is_worth_a_retry(batch, capacity, is_fixed):
    with pytest.raises(DeviceMemoryError) as caught:
        predict_in_batches(SmallMemory(capacity), batch, 4, is_fixed=is_fixed)
    assert isinstance(caught.value, TransientError)


def test_fixed_batches_are_filled_up_and_the_filling_is_dropped(batch):
    forward = SmallMemory(4)
    predicted, _ = predict_in_batches(forward, batch, 4, is_fixed=True)
    assert forward.seen == [4, 4]
    np.testing.assert_array_equal(predicted, batch * 2)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 64, 64), dtype=np.float32),
        np.zeros((1, 2, 64, 64), dtype=np.float32),
        np.zeros((0, 3, 64, 64), dtype=np.float32),
        np.zeros((1, 3, 63, 64), dtype=np.float32),
        np.full((1, 3, 64, 64), np.nan, dtype=np.float32),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(package, bad):
    with pytest.raises(InvalidBatchError):
        Runner("cpu").predict(package, bad)


def test_networks_stay_resident_and_the_least_used_leaves_first(tmp_path):
    packages = [load_package(write_random_package(tmp_path, seed=i, version=f"0.{i}.0")) for i in range(3)]
    runner = Runner("cpu", max_models=2)
    for package in (packages[0], packages[1], packages[0], packages[2]):
        runner.warm_up(package)
    assert runner.resident_models == (packages[0].card.weights.sha256, packages[2].card.weights.sha256)


def test_resident_networks_keep_to_their_memory(tmp_path):
    packages = [load_package(write_random_package(tmp_path, seed=i, version=f"0.{i}.0")) for i in range(2)]
    runner = Runner("cpu", max_bytes=1)
    for package in packages:
        runner.warm_up(package)
    assert runner.resident_models == (packages[1].card.weights.sha256,)


def test_threads_share_a_runner(package, batch):
    runner = Runner("cpu")
    expected = runner.predict(package, batch).probabilities
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(runner.predict(package, batch).probabilities))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_agrees_with_the_cpu(package, batch):
    runner = Runner("cuda", gpu_batch_size=3)
    expected = Runner("cpu").predict(package, batch).probabilities
    actual = runner.predict(package, batch)
    np.testing.assert_allclose(actual.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(runner.predict(package, batch).probabilities, actual.probabilities)
    assert actual.statistics.device == "cuda:0"


@pytest.mark.parametrize("name", ["tpu9", "mps", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(PermanentError, match="choose"):
        Runner(name)
