"""Adapter: runs networks on a device. The only device code of the node.

Networks stay resident between studies, least recently used ones leave first. Batches on a GPU shrink when its
memory runs out. On a CPU every batch has one fixed size, the last one filled up: oneDNN chooses its kernels
by the size of the batch, so that another size would change the last bits of a result. A network runs in plain
PyTorch unless a measurement on this very device chose another engine (`tuning`), and again when that fails.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dicom_node.errors import PermanentError, TransientError
from inference.activation import to_probabilities
from inference.engines import EngineName, EngineUnavailableError, Forward, build_engine
from inference.findings import ModelIdentity
from inference.packages import ModelPackage
from inference.volume_preparation import VolumeRecipe

Progress = Callable[[int, int], None]
"""Called with the number of images done and their total."""

CPU_BATCH_SIZE: Final = 4
"""Images in every batch on a CPU. Larger ones gain nothing; another number changes last bits of results."""

DEFAULT_GPU_BATCH_SIZE: Final = 32
"""Largest number of images in a batch on a GPU."""

DEFAULT_GPU_WINDOWS: Final = 4
"""Largest number of windows of a volume in a batch on a GPU; a CPU takes one at a time."""

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
    engine : str
        What ran the network.
    fallback : str
        Why that is not the engine that was chosen; empty when it is.
    """

    images: int
    seconds: float
    batch_size: int
    device: str
    engine: str = EngineName.EAGER
    fallback: str = ""

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


EngineChoice = Callable[[ModelPackage, torch.device], EngineName]
"""Says which engine a package runs in on a device."""


def always_eager(package: ModelPackage, device: torch.device) -> EngineName:
    """Choose plain PyTorch."""
    del package, device
    return EngineName.EAGER


@dataclass(slots=True, kw_only=True, eq=False)
class _Resident:
    """A network that stays loaded, and the engines built of it, by the shape of their batch."""

    digest: str
    network: torch.nn.Module
    engine: EngineName
    fallback: str = ""
    built: dict[tuple[int, ...], Forward] = field(default_factory=dict)

    def fall_back(self, reason: str) -> None:
        """Run in plain PyTorch from now on."""
        self.engine, self.fallback = EngineName.EAGER, f"{self.engine}: {reason}"
        self.built.clear()


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
    choose_engine : callable
        Says which engine a package runs in; plain PyTorch unless something else was measured to agree.
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
        choose_engine: EngineChoice = always_eager,
        observer: Callable[[ModelIdentity, RunStatistics], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device = _choose_device(device)
        self._batch_size = CPU_BATCH_SIZE if self._device.type == "cpu" else gpu_batch_size
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._choose_engine = choose_engine
        self._observer = observer
        self._clock = clock
        self._resident: OrderedDict[str, _Resident] = OrderedDict()
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
        return tuple(resident.digest for resident in self._resident.values())

    def warm_up(self, package: ModelPackage) -> None:
        """Make a package's network resident before the first study needs it.

        Raises
        ------
        ModelPackageError
            If the package does not build.
        """
        with self._lock:
            self._resident_of(package)

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
            (N, labels, ...) probabilities, and the run's statistics.

        Raises
        ------
        InvalidBatchError
            If the batch is empty, does not fit the network, or holds undefined values.
        UnexpectedOutputError
            If the network's output does not fit the card.
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
            resident = self._resident_of(package)
            started = self._clock()
            probabilities, batch_size = self._predict_micro_batches(package, resident, batch, progress)
            seconds = self._clock() - started
        return self._predicted(package, resident, probabilities, (len(batch), seconds, batch_size))

    def predict_volume(
        self, package: ModelPackage, volume: npt.NDArray[np.float32], progress: Progress | None = None
    ) -> Prediction:
        """Run a package's 3-D network over a prepared volume, window by window.

        Parameters
        ----------
        package : ModelPackage
            The model.
        volume : ndarray
            (C, X, Y, Z) float32 along the network's axes (`volume_preparation`).
        progress : callable or None
            Called after every batch of windows with (windows done, windows).

        Returns
        -------
        Prediction
            (labels, X, Y, Z) probabilities, and the run's statistics, windows as images.

        Raises
        ------
        InvalidBatchError, UnexpectedOutputError, DeviceFailureError, DeviceMemoryError, ModelPackageError
            As `predict` raises them.
        """
        channels = package.card.input.channels
        has_shape = volume.ndim == _BATCH_NDIM and volume.shape[0] == channels and volume.size > 0
        if not has_shape or not np.isfinite(volume).all():
            raise InvalidBatchError(
                f"A volume of shape {volume.shape} was given to a network of {channels} channels, or it has "
                "undefined values: prepare it with inference.volume_preparation."
            )
        recipe = package.volume_recipe
        total = count_windows(volume.shape[1:], recipe.window, recipe.overlap)
        with self._lock:
            resident = self._resident_of(package)
            size = 1 if self._device.type == "cpu" else min(DEFAULT_GPU_WINDOWS, total)
            started = self._clock()
            output = None
            while output is None:
                output = self._slide(resident, volume, recipe, size, _counted(progress, total))
                if output is None and size == 1:
                    raise DeviceMemoryError(
                        "The device has no memory for one window: free it or choose another device."
                    )
                size = size if output is not None else size // 2
            seconds = self._clock() - started
        labels, activation = len(package.card.labels), package.card.network.activation
        probabilities = to_probabilities(output, labels, activation)[0].numpy()
        return self._predicted(package, resident, probabilities, (total, seconds, size))

    def _predicted(
        self,
        package: ModelPackage,
        resident: _Resident,
        probabilities: npt.NDArray[np.float32],
        run: tuple[int, float, int],
    ) -> Prediction:
        """Tell the observer of a run (images, seconds, images in a batch), and return its prediction."""
        images, seconds, batch_size = run
        statistics = RunStatistics(
            images=images,
            seconds=seconds,
            batch_size=batch_size,
            device=str(self._device),
            engine=str(resident.engine),
            fallback=resident.fallback,
        )
        if self._observer is not None:
            self._observer(package.identity, statistics)
        return Prediction(probabilities=probabilities, statistics=statistics)

    def _predict_micro_batches(
        self,
        package: ModelPackage,
        resident: _Resident,
        batch: npt.NDArray[np.float32],
        progress: Progress | None,
    ) -> tuple[npt.NDArray[np.float32], int]:
        labels, activation = len(package.card.labels), package.card.network.activation

        def forward(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
            tensor = torch.from_numpy(np.ascontiguousarray(images))
            output = self._run(resident, tensor.to(self._device, memory_format=torch.channels_last))
            if output is None:
                return None
            return np.ascontiguousarray(to_probabilities(output, labels, activation).cpu().numpy())

        while True:
            is_fixed = self._device.type == "cpu" or resident.engine is not EngineName.EAGER
            had_engine = resident.engine is not EngineName.EAGER
            try:
                return predict_in_batches(
                    forward, batch, self._batch_size, is_fixed=is_fixed, progress=progress
                )
            except DeviceMemoryError:
                if self._device.type == "cpu" or not had_engine:
                    raise  # a GPU starts again in plain PyTorch, whose batches may shrink

    def _slide(
        self,
        resident: _Resident,
        volume: npt.NDArray[np.float32],
        recipe: VolumeRecipe,
        size: int,
        count: Callable[[int], None],
    ) -> torch.Tensor | None:
        """Return (1, channels, X, Y, Z) output blended over all windows, or None when memory runs out."""
        from monai.inferers.inferer import SlidingWindowInferer

        def look(windows: torch.Tensor) -> torch.Tensor:
            filling = size - len(windows) if resident.engine is not EngineName.EAGER else 0
            padding = (0,) * (2 * (windows.ndim - 1)) + (0, filling)
            output = self._run(resident, functional.pad(windows, padding) if filling else windows)
            if output is None:
                raise torch.OutOfMemoryError("no memory for these windows")
            count(len(windows))
            return output[: len(windows)]

        inferer = SlidingWindowInferer(
            roi_size=recipe.window,
            sw_batch_size=size,
            overlap=recipe.overlap,
            mode=recipe.blend,
            sw_device=self._device,
            device="cpu",
        )
        try:
            with torch.inference_mode():
                blended = inferer(torch.from_numpy(np.ascontiguousarray(volume))[None], look)
        except torch.OutOfMemoryError:
            return None
        return cast("torch.Tensor", blended)

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
            network = self._resident_of(package).network
            try:
                yield network, self._device
            except torch.OutOfMemoryError as exc:
                raise DeviceMemoryError(
                    "The device has no memory for this image: free it or choose another device."
                ) from exc
            except torch.AcceleratorError as exc:
                raise DeviceFailureError(f"{self._device} failed: retry, or choose another device.") from exc

    def _run(self, resident: _Resident, images: torch.Tensor) -> torch.Tensor | None:
        """Return the output for one micro-batch, or None if the device's memory does not hold it.

        An engine that fails gives way to plain PyTorch for as long as the network stays resident.
        """
        if resident.engine is not EngineName.EAGER:
            try:
                with torch.inference_mode():
                    return self._engine(resident, images)(images)
            except torch.OutOfMemoryError:
                resident.fall_back("out of memory")
                _empty_cache(self._device)
            except EngineUnavailableError as exc:
                resident.fall_back(str(exc))
            except torch.AcceleratorError as exc:
                raise DeviceFailureError(f"{self._device} failed: retry, or choose another device.") from exc
            except (RuntimeError, ValueError) as exc:
                resident.fall_back(type(exc).__name__)
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
                output: torch.Tensor = resident.network(images)
                return output
        except torch.OutOfMemoryError:
            _empty_cache(self._device)
            return None
        except torch.AcceleratorError as exc:
            raise DeviceFailureError(f"{self._device} failed: retry, or choose another device.") from exc
        except (RuntimeError, ValueError) as exc:
            if _CPU_OUT_OF_MEMORY in str(exc):
                return None
            raise InvalidBatchError(
                f"The network refused images of shape {tuple(images.shape[1:])}: correct input.matrix and "
                "the roles on the model's card."
            ) from exc

    def _engine(self, resident: _Resident, images: torch.Tensor) -> Forward:
        """Return the engine for batches of this shape."""
        shape = tuple(images.shape)
        if shape not in resident.built:
            resident.built[shape] = build_engine(resident.engine, resident.network, images)
        return resident.built[shape]

    def _resident_of(self, package: ModelPackage) -> _Resident:
        """Return the resident network of a package, built if need be; the lock is held."""
        digest = package.card.weights.sha256
        key = f"{digest} {package.card.network.model_dump_json()}"
        resident = self._resident.pop(key, None)
        if resident is None:
            network = package.build().eval().to(self._device)
            if package.card.input.dimensions == 2:  # noqa: PLR2004 - slices and radiographs
                network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            resident = _Resident(
                digest=digest, network=network, engine=self._choose_engine(package, self._device)
            )
        self._resident[key] = resident
        while len(self._resident) > 1 and (
            len(self._resident) > self._max_models
            or sum(_size_bytes(other.network) for other in self._resident.values()) > self._max_bytes
        ):
            self._resident.popitem(last=False)
        return resident


def count_windows(shape: Sequence[int], window: Sequence[int], overlap: float) -> int:
    """Return how many windows cover a volume, as MONAI's sliding window places them."""
    counts = []
    for extent, side in zip(shape, window, strict=True):
        step = max(int(side * (1 - overlap)), 1)
        counts.append(1 if extent <= side else ceil((extent - side) / step) + 1)
    return prod(counts)


def _counted(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Return what adds up windows and reports their number."""
    done = 0

    def count(windows: int) -> None:
        nonlocal done
        done = min(done + windows, total)
        if progress is not None:
            progress(done, total)

    return count


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


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
        (n, C, H, W) float32 to (n, labels, ...) float32, or None when memory runs out.
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
