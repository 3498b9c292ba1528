from __future__ import annotations

import io
import socket
import sys
import warnings
import zipfile

import numpy as np
import onnx
import pytest
import torch
from foreign_packages import (
    SIDE,
    as_torchscript,
    small_network,
    write_onnx_package,
    write_torchscript_package,
)

from inference.foreign import (
    ForeignNetworkError,
    OnnxNetwork,
    _open_in_openvino,
    compile_openvino,
    read_torchscript,
)
from inference.packages import load_package

X = torch.linspace(-1, 1, SIDE**3).reshape(1, 1, SIDE, SIDE, SIDE)


def test_torchscript_gives_what_the_network_gave(tmp_path):
    built = load_package(write_torchscript_package(tmp_path)).build()
    np.testing.assert_allclose(built(X), small_network()(X), atol=1e-6)


def test_onnx_gives_what_the_network_gave_also_for_several_images(tmp_path):
    built = load_package(write_onnx_package(tmp_path)).build()
    batch = torch.cat([X, -X])
    np.testing.assert_allclose(built(batch), small_network()(batch), atol=1e-5)


def test_openvino_runs_onnx_where_onnx_runtime_is_missing(tmp_path):
    content = (write_onnx_package(tmp_path) / "model.onnx").read_bytes()
    call, batch = _open_in_openvino(content)
    assert batch == 1
    np.testing.assert_allclose(call(X.numpy()), small_network()(X), atol=1e-4)


def test_openvino_sends_nothing_home(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("something was sent")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    compile_openvino((write_onnx_package(tmp_path) / "model.onnx").read_bytes(), "f32")
    assert sys.modules["openvino_telemetry"] is None


@pytest.mark.parametrize("protocol", [True, False])
def test_a_pickle_is_refused_whichever_container_it_has(protocol):
    buffer = io.BytesIO()
    torch.save(small_network(), buffer, _use_new_zipfile_serialization=protocol)
    with pytest.raises(ForeignNetworkError, match="pickle"):
        read_torchscript(buffer.getvalue())


class FileReader(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/hostname", size=1, dtype=torch.uint8)


def test_torchscript_that_touches_files_is_refused_before_it_loads():
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(FileReader()), buffer)
    with pytest.raises(ForeignNetworkError, match="from_file"):
        read_torchscript(buffer.getvalue())


def test_a_damaged_torchscript_is_refused():
    content = as_torchscript(small_network())
    damaged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(damaged, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"" if name.endswith("data.pkl") else source.read(name))
    with pytest.raises(ForeignNetworkError, match="does not load"):
        read_torchscript(damaged.getvalue())


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07"])
def test_what_is_no_onnx_model_is_refused(content):
    with pytest.raises(ForeignNetworkError, match="ONNX"):
        OnnxNetwork(content)


def test_onnx_weights_in_other_files_are_refused(tmp_path):
    path = write_onnx_package(tmp_path) / "model.onnx"
    model = onnx.load(path)
    onnx.save(model, tmp_path / "out.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(ForeignNetworkError, match="other files"):
        OnnxNetwork((tmp_path / "out.onnx").read_bytes())
