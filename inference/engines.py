"""Adapter: the engines that can run a network: PyTorch in several ways, ONNX Runtime, OpenVINO, TensorRT.

An engine is built for one network and one shape of batch, and gives the network's own output for it. Whether
it may be used in place of plain PyTorch is decided in `tuning`, by measuring. Everything here is loaded when
it is asked for: none of it is needed to run a network plainly.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import platform
import shutil
import warnings
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch

from dicom_node.errors import PermanentError
from inference.foreign import OnnxNetwork, compile_openvino, open_session, run_session

Forward: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""(N, C, ...) float32 on the device to the network's output, float32, on any device."""

_OPSET: Final = 18
"""ONNX operator set that is written; all runtimes here read it."""

_CPUINFO: Final = Path("/proc/cpuinfo")


class EngineName(StrEnum):
    """A way to run a network."""

    EAGER = "eager"
    EAGER_BF16 = "eager_bf16"
    COMPILED = "compiled"
    COMPILED_BF16 = "compiled_bf16"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    OPENVINO_BF16 = "openvino_bf16"
    TENSORRT = "tensorrt"


ALL_ENGINES: Final = tuple(EngineName)

_LIBRARIES: Final = {
    EngineName.EAGER: ("torch",),
    EngineName.EAGER_BF16: ("torch",),
    EngineName.COMPILED: ("torch",),
    EngineName.COMPILED_BF16: ("torch",),
    EngineName.ONNXRUNTIME: ("onnxruntime", "onnx"),
    EngineName.OPENVINO: ("openvino",),
    EngineName.OPENVINO_BF16: ("openvino",),
    EngineName.TENSORRT: ("torch_tensorrt",),
}
"""Modules that an engine needs."""


class EngineUnavailableError(PermanentError):
    """An engine cannot run this network on this machine; plain PyTorch can."""


def device_name(device: torch.device) -> str:
    """Return the model of a device, as its maker calls it, with the threads it works with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    if _CPUINFO.is_file():
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model
        )
    return f"{model}, {torch.get_num_threads()} threads"


def software_of(engine: EngineName) -> str:
    """Return the libraries of an engine with their versions: another version needs another measurement."""
    names = dict.fromkeys(("torch", *_LIBRARIES[engine]))
    return ", ".join(f"{name} {_version_of(name)}" for name in names)


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def available_engines(device: torch.device) -> tuple[EngineName, ...]:
    """Return the engines whose libraries are here and that run on a device; plain PyTorch is the first."""
    is_gpu = device.type == "cuda"
    found = []
    for engine, libraries in _LIBRARIES.items():
        is_installed = all(importlib.util.find_spec(name) is not None for name in libraries)
        if engine is EngineName.TENSORRT:
            is_installed = is_gpu and (is_installed or _has_tensorrt_provider())
        elif engine in {EngineName.COMPILED, EngineName.COMPILED_BF16}:
            is_installed = is_gpu or any(map(shutil.which, ("g++", "clang++", "c++")))
        elif engine in {EngineName.OPENVINO, EngineName.OPENVINO_BF16}:
            is_installed = is_installed and not is_gpu
        elif engine is EngineName.ONNXRUNTIME and is_gpu:
            is_installed = is_installed and "CUDAExecutionProvider" in _providers()
        if is_installed:
            found.append(engine)
    return tuple(found)


def _providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _has_tensorrt_provider() -> bool:
    return "TensorrtExecutionProvider" in _providers()


def build_engine(engine: EngineName, network: torch.nn.Module, example: torch.Tensor) -> Forward:
    """Build an engine and let it run once.

    Parameters
    ----------
    engine : EngineName
        Which one.
    network : Module
        In evaluation mode, on the device of the example; it stays as it is.
    example : Tensor
        A batch of the one shape that the engine will be given, float32.

    Returns
    -------
    callable
        The engine.

    Raises
    ------
    EngineUnavailableError
        If it cannot be built, or does not run the example.
    """
    try:
        forward = _build(engine, network, example)
        with torch.inference_mode():
            output = forward(example)
    except (torch.OutOfMemoryError, EngineUnavailableError):
        raise
    except (RuntimeError, ValueError, TypeError, OSError, ImportError, AttributeError, PermanentError) as exc:
        raise EngineUnavailableError(f"{engine} does not run this network: {type(exc).__name__}") from exc
    if not isinstance(output, torch.Tensor):
        raise EngineUnavailableError("The network gives more than one array: it runs in plain PyTorch.")
    return forward


def _build(engine: EngineName, network: torch.nn.Module, example: torch.Tensor) -> Forward:
    builders: Mapping[EngineName, Callable[[], Forward]] = {
        EngineName.EAGER: lambda: network,
        EngineName.EAGER_BF16: lambda: _in_bfloat16(network, network),
        EngineName.COMPILED: lambda: _compiled(network),
        EngineName.COMPILED_BF16: lambda: _in_bfloat16(network, _compiled(network)),
        EngineName.ONNXRUNTIME: lambda: _onnxruntime(network, example, ()),
        EngineName.OPENVINO: lambda: _openvino(network, example, "f32"),
        EngineName.OPENVINO_BF16: lambda: _openvino(network, example, "bf16"),
        EngineName.TENSORRT: lambda: _tensorrt(network, example),
    }
    return builders[engine]()


def _in_bfloat16(network: torch.nn.Module, forward: Forward) -> Forward:
    """Run in bfloat16 with channels last, which is how CPUs with AVX-512 BF16 or AMX and GPUs are fastest."""
    if isinstance(network, OnnxNetwork):
        raise EngineUnavailableError("An ONNX graph has its own precision.")

    def call(images: torch.Tensor) -> torch.Tensor:
        is_volume = images.ndim == 5  # noqa: PLR2004 - N, C and three axes
        layout = torch.channels_last_3d if is_volume else torch.channels_last
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            return forward(images.contiguous(memory_format=layout)).float()

    return call


def _compiled(network: torch.nn.Module) -> Forward:
    if isinstance(network, OnnxNetwork | torch.jit.ScriptModule):
        raise EngineUnavailableError("Only networks built here can be compiled.")
    import torch._inductor.config as inductor

    inductor.compile_threads = 1  # no pool of processes that outlives the compilation
    compiled: Forward = torch.compile(network, dynamic=False)
    return compiled


def _onnxruntime(network: torch.nn.Module, example: torch.Tensor, providers: tuple[object, ...]) -> Forward:
    if isinstance(network, OnnxNetwork) and not providers:
        raise EngineUnavailableError("The package runs in ONNX Runtime as it is.")
    fallback = ["CUDAExecutionProvider"] if example.is_cuda else []
    session = open_session(export_onnx(network, example), [*providers, *fallback, "CPUExecutionProvider"])
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def call(images: torch.Tensor) -> torch.Tensor:
        array = np.ascontiguousarray(images.cpu().numpy())
        return torch.from_numpy(run_session(session, name, output, array))

    return call


def _openvino(network: torch.nn.Module, example: torch.Tensor, precision: str) -> Forward:
    compiled = compile_openvino(export_onnx(network, example), precision)

    def call(images: torch.Tensor) -> torch.Tensor:
        answer = compiled(np.ascontiguousarray(images.numpy()))[0]
        return torch.from_numpy(np.array(answer, dtype=np.float32))

    return call


def _tensorrt(network: torch.nn.Module, example: torch.Tensor) -> Forward:
    """Build with Torch-TensorRT where that is installed, else with ONNX Runtime's TensorRT provider."""
    if importlib.util.find_spec("torch_tensorrt") is None or isinstance(network, OnnxNetwork):
        return _onnxruntime(network, example, (("TensorrtExecutionProvider", {"trt_fp16_enable": True}),))
    import torch_tensorrt  # type: ignore[import-not-found]  # only on machines with TensorRT

    compiled = torch_tensorrt.compile(
        network,
        ir="ts" if isinstance(network, torch.jit.ScriptModule) else "dynamo",
        inputs=[example],
        enabled_precisions={torch.float32, torch.float16},
    )

    def call(images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = compiled(images)
        return answer.float()

    return call


def export_onnx(network: torch.nn.Module, example: torch.Tensor) -> bytes:
    """Export a network as ONNX for batches of exactly the example's shape.

    Parameters
    ----------
    network : Module
        One tensor in, one tensor out.
    example : Tensor
        A batch.

    Returns
    -------
    bytes
        The model, weights included.
    """
    if isinstance(network, OnnxNetwork):
        return network.content
    if example.is_cuda:
        network, example = copy.deepcopy(network).cpu(), example.cpu()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters announce their own future
        if isinstance(network, torch.jit.ScriptModule):
            buffer = io.BytesIO()
            torch.onnx.export(network, (example,), buffer, dynamo=False, opset_version=_OPSET)  # type: ignore[arg-type]
            return buffer.getvalue()
        program = torch.onnx.export(network, (example,), dynamo=True, opset_version=_OPSET, verbose=False)
    if program is None:
        raise EngineUnavailableError("PyTorch did not export the network.")
    content: bytes = program.model_proto.SerializeToString()
    return content
