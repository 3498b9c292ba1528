"""Adapter: runs networks on a device. The only device code of the node.

Networks stay resident between studies, least recently used ones leave first. Batches shrink when the device
runs out of memory. On a CPU a slice's result is the same bit for bit whatever the size of its batch: layers
normalise by stored statistics and oneDNN sums each output element in one order
(tests/inference/test_runner.py proves it).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from dicom_node.errors import PermanentError, TransientError
from inference.packages import ModelPackage

Progress = Callable[[int, int], None]
"""Called with the number of images done and their total."""

DEFAULT_BATCH_SIZE: Final = {"cpu": 4, "cuda": 32}
"""Images in a batch by device type: on a CPU larger batches leave the cache and gain nothing."""

_GIBIBYTE: Final = 1024**3
_BATCH_NDIM: Final = 4

_device_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""One lock a device for the whole process, so that two runners do not add up to more than its memory."""


class DeviceMemoryError(TransientError):
    """The device has no memory for even one image now: retry when it is free."""


class InvalidBatchError(PermanentError):
    """The input of a network has the wrong shape or holds undefined values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatistics:
    """How a prediction ran.

    Attributes
    ----------
    images : int
        Images predicted.
    seconds : float
        Wall-clock time of the network, without loading it.
    batch_size : int
        Images in a batch at the end, after any back-off.
    device : str
        ``cpu`` or ``cuda:<n>``.
    """

    images: int
    seconds: float
    batch_size: int
    device: str

    @property
    def images_per_second(self) -> float:
        """Throughput; 0 when nothing was predicted."""
        return self.images / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """Probabilities of a batch and how they were made.

    Attributes
    ----------
    probabilities : ndarray
        (N, labels, H, W) float32, 0 to 1, one channel a label.
    statistics : RunStatistics
        Throughput, for the log.
    """

    probabilities: npt.NDArray[np.float32]
    statistics: RunStatistics


class Runner:
    """Runs model packages on one device.

    Parameters
    ----------
    device : str or None
        ``cpu``, ``cuda`` or ``cuda:<n>``; None takes CUDA when there is one.
    threads : int or None
        CPU threads of one operator, for the whole process; None leaves torch's choice.
    batch_size : int or None
        Largest number of images in a batch; None takes the device's default.
    max_models : int
        Most networks that stay resident.
    max_bytes : int
        Most memory that resident weights may take together; one network always fits.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    PermanentError
        If the device does not exist.
    """

    def __init__(
        self,
        device: str | None = None,
        *,
        threads: int | None = None,
        batch_size: int | None = None,
        max_models: int = 4,
        max_bytes: int = 4 * _GIBIBYTE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device = _choose_device(device)
        self._batch_size = batch_size or DEFAULT_BATCH_SIZE[self._device.type]
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._clock = clock
        self._resident: OrderedDict[str, torch.nn.Module] = OrderedDict()
        self._lock = _device_locks[str(self._device)]
        if threads is not None:
            torch.set_num_threads(threads)

    @property
    def device(self) -> str:
        """The device, for results and logs."""
        return str(self._device)

    @property
    def resident_models(self) -> tuple[str, ...]:
        """Weights digests of the resident networks, least recently used first."""
        return tuple(self._resident)

    def warm_up(self, package: ModelPackage) -> None:
        """Make a package's network resident before the first study needs it.

        Raises
        ------
        ModelPackageError
            If the package does not build.
        """
        with self._lock:
            self._network(package)

    def predict(
        self, package: ModelPackage, batch: npt.NDArray[np.float32], progress: Progress | None = None
    ) -> Prediction:
        """Run a package's network on prepared images.

        Parameters
        ----------
        package : ModelPackage
            The model.
        batch : ndarray
            (N, C, H, W) float32 prepared images.
        progress : callable or None
            Called after every micro-batch with (images done, N).

        Returns
        -------
        Prediction
            (N, labels, H, W) probabilities, and the run's statistics.

        Raises
        ------
        InvalidBatchError
            If the batch is not (N, C, H, W) with the model's channels, or holds undefined values.
        DeviceMemoryError
            If the device has no memory for one image.
        ModelPackageError
            If the package does not build.
        """
        channels = len(package.card.input.roles)
        if batch.ndim != _BATCH_NDIM or batch.shape[1] != channels or not np.isfinite(batch).all():
            raise InvalidBatchError(
                f"A batch of shape {batch.shape} was given to a network of {channels} channels, or it holds "
                "undefined values: prepare the series with inference.preparation."
            )
        with self._lock:
            network = self._network(package)
            started = self._clock()
            probabilities, batch_size = self._run(network, batch, progress)
            seconds = self._clock() - started
        statistics = RunStatistics(
            images=len(batch), seconds=seconds, batch_size=batch_size, device=str(self._device)
        )
        return Prediction(probabilities=probabilities, statistics=statistics)

    def _run(
        self, network: torch.nn.Module, batch: npt.NDArray[np.float32], progress: Progress | None
    ) -> tuple[npt.NDArray[np.float32], int]:
        """Predict in micro-batches, halving them while memory runs out."""
        size = self._batch_size
        parts: list[npt.NDArray[np.float32]] = []
        done = 0
        while done < len(batch):
            part = self._forward(network, batch[done : done + size])
            if part is None:
                if size == 1:
                    raise DeviceMemoryError(
                        f"{self._device} has no memory for one image: free it or choose another device."
                    )
                size = max(size // 2, 1)
                continue
            parts.append(part)
            done += len(part)
            if progress is not None:
                progress(done, len(batch))
        if not parts:
            return np.zeros((0, 0, *batch.shape[2:]), dtype=np.float32), size
        return np.concatenate(parts), size

    def _forward(
        self, network: torch.nn.Module, images: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32] | None:
        """Return the probabilities of one micro-batch, or None if the device's memory does not hold it."""
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
                tensor = torch.from_numpy(np.ascontiguousarray(images)).to(
                    self._device, memory_format=torch.channels_last
                )
                probabilities: npt.NDArray[np.float32] = torch.sigmoid(network(tensor)).float().cpu().numpy()
                return np.ascontiguousarray(probabilities)
        except torch.OutOfMemoryError:
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            return None

    def _network(self, package: ModelPackage) -> torch.nn.Module:
        """Return the resident network of a package, built if need be; the lock is held."""
        key = package.card.weights.sha256
        network = self._resident.pop(key, None)
        if network is None:
            network = package.build().eval().to(self._device)
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        self._resident[key] = network
        while len(self._resident) > 1 and (
            len(self._resident) > self._max_models
            or sum(map(_size_bytes, self._resident.values())) > self._max_bytes
        ):
            self._resident.popitem(last=False)
        return network


def _choose_device(name: str | None) -> torch.device:
    """Return the device asked for, or the best there is."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise PermanentError(f"There is no device {name!r}: choose cpu, cuda or cuda:<n>.") from exc
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise PermanentError(f"There is no device {name!r} here: choose cpu or install the driver.")
    elif device.type != "cpu":
        raise PermanentError(f"Device {name!r} is not supported: choose cpu, cuda or cuda:<n>.")
    return device


def _size_bytes(network: torch.nn.Module) -> int:
    """Return the memory of a network's weights and buffers."""
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())
