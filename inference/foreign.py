"""Adapter: networks of other frameworks, TorchScript and ONNX, from bytes whose digest was checked.

TorchScript is a program. It runs in TorchScript's own interpreter, which imports no Python, and here without
the few operators that touch files; still, install TorchScript only from people whom you would let write code.
ONNX is a graph of numeric operators and runs no code of its own. Pickles are neither and do not load.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from dicom_node.errors import PermanentError

_MAX_CODE_BYTES: Final = 64 * 1024 * 1024
"""Largest program text of a TorchScript archive; real ones have some hundred kilobytes."""

_FILE_OPERATORS: Final = re.compile(r"\b(?:from_file|save|load|_load|_save|fopen|open)\s*\(")
"""Operators by which a TorchScript program could read or write files."""

_GIVE_UP: Final = "export the network again, or ask its maker."


class ForeignNetworkError(PermanentError):
    """A file of another framework does not load; the message says why."""


def read_torchscript(content: bytes) -> torch.nn.Module:
    """Load a TorchScript module.

    Parameters
    ----------
    content : bytes
        What ``torch.jit.save`` wrote; its digest has been checked.

    Returns
    -------
    torch.nn.Module
        On the CPU.

    Raises
    ------
    ForeignNetworkError
        If it is a pickle, damaged, or uses operators that touch files.
    """
    _require_script(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch recommends torch.export for new files
            loaded: torch.nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
                io.BytesIO(content), map_location="cpu"
            )
    except (RuntimeError, ValueError) as exc:
        raise ForeignNetworkError(
            f"The TorchScript does not load in torch {torch.__version__}: {_GIVE_UP}"
        ) from exc
    return loaded


def _require_script(content: bytes) -> None:
    """Refuse what is no TorchScript archive before torch sees it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [PurePosixPath(name) for name in archive.namelist()]
            code = [name for name in names if len(name.parts) > 1 and name.parts[1] == "code"]
            if not code or not any(name.name == "constants.pkl" for name in names):
                raise ForeignNetworkError(
                    "The file is a pickle (torch.save), no TorchScript: save it with torch.jit.save, or its "
                    "state dict as safetensors. Pickles are not loaded, because they run code."
                )
            programs = [name for name in code if name.suffix == ".py"]
            if sum(archive.getinfo(str(name)).file_size for name in programs) > _MAX_CODE_BYTES:
                raise ForeignNetworkError("The TorchScript's program is implausibly large: " + _GIVE_UP)
            for name in programs:
                found = _FILE_OPERATORS.search(archive.read(str(name)).decode("utf-8", "replace"))
                if found:
                    raise ForeignNetworkError(
                        f"The TorchScript calls {found.group(0)}...), which can touch files: {_GIVE_UP}"
                    )
    except (zipfile.BadZipFile, KeyError, RuntimeError) as exc:
        raise ForeignNetworkError(
            "The file is no TorchScript archive (an old pickle, or damaged): save it with torch.jit.save."
        ) from exc


class OnnxNetwork(torch.nn.Module):
    """An ONNX graph that can be called like any network.

    It runs in ONNX Runtime, or in OpenVINO where only that is installed. Weights stay inside the session.

    Parameters
    ----------
    content : bytes
        The model file.

    Attributes
    ----------
    content : bytes
        The same, for engines that read ONNX.

    Raises
    ------
    ForeignNetworkError
        If no runtime is installed, or the file does not load.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content
        self._call, self._batch = _open_onnx(content)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the first output for (N, C, ...) float32 images."""
        array = images.detach().float().cpu().contiguous().numpy()
        if self._batch is None:
            return torch.from_numpy(self._call(array)).to(images.device)
        if self._batch != 1:
            raise ValueError(
                f"the graph takes batches of {self._batch} only: export it for any batch, or for 1"
            )
        answers = [self._call(array[index : index + 1]) for index in range(len(array))]
        return torch.from_numpy(np.concatenate(answers)).to(images.device)


def _open_onnx(content: bytes) -> tuple[Any, int | None]:
    """Return what calls the graph, and the batch size it was exported for (None: any)."""
    try:
        return _open_in_onnxruntime(content)
    except ImportError:
        try:
            return _open_in_openvino(content)
        except ImportError as exc:
            raise ForeignNetworkError(
                "No runtime for ONNX is installed: install 'preread[engines]'."
            ) from exc


def _open_in_onnxruntime(content: bytes) -> tuple[Any, int | None]:
    import onnxruntime

    has_cuda = torch.cuda.is_available() and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    providers = ["CUDAExecutionProvider"] if has_cuda else []
    session = open_session(content, [*providers, "CPUExecutionProvider"])
    if len(session.get_inputs()) != 1:
        raise ForeignNetworkError(f"The ONNX graph has {len(session.get_inputs())} inputs: one is read here.")
    declared = session.get_inputs()[0]
    batch = declared.shape[0] if declared.shape else None
    output = session.get_outputs()[0].name

    def call(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return run_session(session, declared.name, output, array)

    return call, batch if isinstance(batch, int) else None


def open_session(content: bytes, providers: list[Any]) -> Any:
    """Open an ONNX Runtime session on a model in memory.

    Raises
    ------
    ForeignNetworkError
        If the file does not load.
    ImportError
        If ONNX Runtime is not installed.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Idle threads that spin cost a busy machine several times the work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _require_one_file(content)
    failures = (
        errors.Fail,
        errors.InvalidProtobuf,
        errors.InvalidGraph,
        errors.InvalidArgument,
        errors.NotImplemented,
        errors.NoSuchFile,
        errors.RuntimeException,
    )
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except failures as exc:
        raise ForeignNetworkError(
            f"The ONNX file does not load in ONNX Runtime {onnxruntime.__version__}: {_GIVE_UP}"
        ) from exc


def run_session(
    session: Any, name: str, output: str, array: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Run a session; what it refuses becomes a ValueError."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    try:
        (answer,) = session.run([output], {name: array})
    except (errors.Fail, errors.InvalidArgument, errors.RuntimeException) as exc:
        if "allocate" in str(exc).lower() or "memory" in str(exc).lower():
            raise torch.OutOfMemoryError("ONNX Runtime has no memory for this batch") from exc
        raise ValueError(f"the ONNX graph refused a batch of shape {array.shape}") from exc
    return np.asarray(answer, dtype=np.float32)


def _require_one_file(content: bytes) -> None:
    """Refuse weights that lie in other files, which no digest on the card would cover."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as exc:
        raise ForeignNetworkError(f"The file is no ONNX model: {_GIVE_UP}") from exc
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ForeignNetworkError(
            "The ONNX model keeps weights in other files: save it as one file (save_as_external_data=False)."
        )


def _open_in_openvino(content: bytes) -> tuple[Any, int | None]:
    compiled = compile_openvino(content, "f32")
    shape = compiled.input(0).partial_shape
    batch = shape[0].get_length() if shape.rank.is_static and shape[0].is_static else None

    def call(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.array(compiled(array)[0], dtype=np.float32)

    return call, batch


def compile_openvino(content: bytes, precision: str) -> Any:
    """Compile an ONNX model in memory for the CPU.

    Parameters
    ----------
    content : bytes
        The model.
    precision : str
        ``f32`` or ``bf16``.

    Raises
    ------
    ForeignNetworkError
        If OpenVINO does not take it.
    ImportError
        If OpenVINO is not installed.
    """
    import sys

    # Importing openvino sends an event to its maker unless this package is out of reach; nothing may leave.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None forbids the import
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    try:
        return core.compile_model(core.read_model(content, b""), "CPU", settings)
    except RuntimeError as exc:
        raise ForeignNetworkError(
            f"The ONNX file does not load in OpenVINO {openvino.__version__}: {_GIVE_UP}"
        ) from exc
