"""Adapter: runs networks on a device. The only device code of the node.

Networks stay resident between studies, least recently used ones leave first. Batches on a GPU shrink when its
memory runs out. On a CPU every batch has one fixed size, the last one filled up: oneDNN chooses its kernels
by the size of the batch, so that another size would change the last bits of a result.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from dicom_node.errors import PermanentError, TransientError
from inference.findings import ModelIdentity
from inference.packages import ModelPackage

Progress = Callable[[int, int], None]
"""Called with the number of images done and their total."""

CPU_BATCH_SIZE: Final = 4
"""Images in every batch on a CPU. Larger ones gain nothing; another number changes last bits of results."""

DEFAULT_GPU_BATCH_SIZE: Final = 32
"""Largest number of images in a batch on a GPU."""

_CPU_OUT_OF_MEMORY: Final = "can't allocate memory"
"""What torch's CPU allocator says; it has no exception of its own."""

_GIBIBYTE: Final = 1024**3
_BATCH_NDIM: Final = 4

_device_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""One lock a device for the whole process, so that two runners do not add up to more than its memory."""


class DeviceMemoryError(TransientError):
    """The device has no memory for even the smallest batch now: retry when it is free."""


class DeviceFailureError(TransientError):
    """The device failed: retry, on another device if it persists."""


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
    gpu_batch_size : int
        Largest number of images in a batch on a GPU; a CPU always takes `CPU_BATCH_SIZE`.
    max_models : int
        Most networks that stay resident.
    max_bytes : int
        Most memory that resident weights may take together; one network always fits.
    observer : callable or None
        Called after every prediction with the model and how it ran, for logs and metrics.
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
        gpu_batch_size: int = DEFAULT_GPU_BATCH_SIZE,
        max_models: int = 4,
        max_bytes: int = 4 * _GIBIBYTE,
        observer: Callable[[ModelIdentity, RunStatistics], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device = _choose_device(device)
        self._batch_size = CPU_BATCH_SIZE if self._device.type == "cpu" else gpu_batch_size
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._observer = observer
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
            If the batch is empty, does not fit the network, or holds undefined values.
        DeviceFailureError
            If the device fails.
        DeviceMemoryError
            If the device has no memory for the smallest batch.
        ModelPackageError
            If the package does not build.
        """
        channels = package.card.input.channels
        has_shape = batch.ndim == _BATCH_NDIM and batch.shape[1] == channels and batch.size > 0
        if not has_shape or not np.isfinite(batch).all():
            raise InvalidBatchError(
                f"A batch of shape {batch.shape} was given to a network of {channels} channels, or it holds "
                "undefined values: prepare the series with inference.preparation."
            )
        with self._lock:
            network = self._network(package)
            started = self._clock()
            probabilities, batch_size = predict_in_batches(
                lambda images: self._forward(network, images),
                batch,
                self._batch_size,
                is_fixed=self._device.type == "cpu",
                progress=progress,
            )
            seconds = self._clock() - started
        statistics = RunStatistics(
            images=len(batch), seconds=seconds, batch_size=batch_size, device=str(self._device)
        )
        if self._observer is not None:
            self._observer(package.identity, statistics)
        return Prediction(probabilities=probabilities, statistics=statistics)

    @contextmanager
    def borrow(self, package: ModelPackage) -> Iterator[tuple[torch.nn.Module, torch.device]]:
        """Lend a package's resident network, in evaluation mode and channels last, with its device.

        For what is no plain prediction: boxes, gradients, Monte-Carlo dropout. The device is locked
        meanwhile; whoever changes the network's mode puts it back.

        Raises
        ------
        DeviceFailureError, DeviceMemoryError
            If the device fails or runs out of memory inside the block.
        ModelPackageError
            If the package does not build.
        """
        with self._lock:
            network = self._network(package)
            try:
                yield network, self._device
            except torch.OutOfMemoryError as exc:
                raise DeviceMemoryError(
                    "The device has no memory for this image: free it or choose another device."
                ) from exc
            except torch.AcceleratorError as exc:
                raise DeviceFailureError(f"{self._device} failed: retry, or choose another device.") from exc

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
        except torch.AcceleratorError as exc:
            raise DeviceFailureError(f"{self._device} failed: retry, or choose another device.") from exc
        except (RuntimeError, ValueError) as exc:
            if _CPU_OUT_OF_MEMORY in str(exc):
                return None
            raise InvalidBatchError(
                f"The network refused images of shape {images.shape[1:]}: correct input.matrix and the roles "
                "on the model's card."
            ) from exc

    def _network(self, package: ModelPackage) -> torch.nn.Module:
        """Return the resident network of a package, built if need be; the lock is held."""
        key = package.card.weights.sha256
        network = self._resident.pop(key, None)
        if network is None:
            network = package.build().eval().to(self._device)
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._resident[key] = network
        while len(self._resident) > 1 and (
            len(self._resident) > self._max_models
            or sum(map(_size_bytes, self._resident.values())) > self._max_bytes
        ):
            self._resident.popitem(last=False)
        return network


def predict_in_batches(
    forward: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32] | None],
    batch: npt.NDArray[np.float32],
    size: int,
    *,
    is_fixed: bool,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float32], int]:
    """Predict in micro-batches, halving them while memory runs out.

    Parameters
    ----------
    forward : callable
        (n, C, H, W) float32 to (n, labels, H, W) float32, or None when memory runs out.
    batch : ndarray
        (N, C, H, W) float32.
    size : int
        Images in a micro-batch at first.
    is_fixed : bool
        Whether every micro-batch has exactly ``size`` images: the last one is filled up with zeros, and
        running out of memory is an error.
    progress : callable or None
        Called with (images done, N).

    Returns
    -------
    tuple of ndarray and int
        (N, labels, H, W) float32, and the size of the micro-batches at the end.

    Raises
    ------
    DeviceMemoryError
        If memory does not hold the smallest micro-batch.
    """
    parts: list[npt.NDArray[np.float32]] = []
    done = 0
    while done < len(batch):
        images = batch[done : done + size]
        filling = size - len(images) if is_fixed else 0
        part = forward(np.pad(images, ((0, filling), (0, 0), (0, 0), (0, 0))) if filling else images)
        if part is None:
            if is_fixed or size == 1:
                raise DeviceMemoryError(
                    "The device has no memory for one batch: free it or choose another device."
                )
            size = max(size // 2, 1)
            continue
        parts.append(part[: len(images)])
        done += len(images)
        if progress is not None:
            progress(done, len(batch))
    return np.concatenate(parts), size


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
