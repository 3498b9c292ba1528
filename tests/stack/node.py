"""Adapter: the node as its users run it, ``preread serve`` in its own process, and a small model for it."""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml

from orthanc.process import Process, free_port

_REPOSITORY = Path(__file__).resolve().parents[2]
MODEL_NAME, MODEL_VERSION = "brain-tumour-lgg", "0.0.1"
_TRAINING_STEPS = 80
_TRAINING_STRIDE = 4  # brightness alone decides, so every fourth pixel teaches as much


class Node:
    """One ``preread serve``: start, stop, kill and start again on the same data folder.

    Parameters
    ----------
    folder : Path
        Takes the configuration, the data and the log.
    settings : mapping
        Settings besides the ports and the data folder, nested as in the YAML file.
    dicom_port, http_port : int
        Ports on 127.0.0.1; 0 takes a free one.
    launcher : sequence of str
        What runs the command line; ``python -m integration.cli`` unless a test replaces it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping,
        *,
        dicom_port: int = 0,
        http_port: int = 0,
        launcher: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.log_file = folder / "node.log"
        self.dicom_port, self.http_port = dicom_port or free_port(), http_port or free_port()
        self.api_url = f"http://127.0.0.1:{self.http_port}/api"
        self._config = folder / "preread.yaml"
        self.settings = {
            **settings,
            "data_dir": str(self.data_dir),
            "log_json": True,
            "dicom": {**settings.get("dicom", {}), "port": self.dicom_port},
            "http": {**settings.get("http", {}), "port": self.http_port},
            "store": {"minimum_free_mb": 100, "minimum_free_fraction": 0.0},
        }
        self.command = [*(launcher or (sys.executable, "-m", "integration.cli")), "serve", "--config"]
        self._process: Process | None = None

    def start(self, *, timeout_s: float = 120.0) -> None:
        """Start the node and return when it takes studies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(yaml.safe_dump(self.settings))
        self._process = Process(
            "Preread",
            [*self.command, str(self._config)],
            log_file=self.log_file,
            environment={"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_REPOSITORY)},
        )
        self._process.start(self.is_ready, timeout_s=timeout_s)

    def stop(self) -> None:
        """Ask the node to end, as Ctrl-C does."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End the node at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()

    def is_running(self) -> bool:
        """Say whether the process lives."""
        return self._process is not None and self._process.is_running()

    def is_ready(self) -> bool:
        """Say whether the node takes studies."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/readyz", timeout=2):
                return True
        except OSError:
            return False

    def get(self, path: str):
        """Return the JSON answer of the API."""
        with urllib.request.urlopen(f"{self.api_url}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body=None) -> int:
        """Post JSON to the API; return the HTTP status, 0 where there was no answer."""
        request = urllib.request.Request(
            f"{self.api_url}{path}",
            data=json.dumps(body or {}).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code
        except OSError:
            return 0

    def log_tail(self) -> str:
        """Return the end of the log."""
        return self._process.log_tail() if self._process else ""


@contextmanager
def running_node(folder: Path, settings: Mapping, *, launcher: Sequence[str] = ()) -> Iterator[Node]:
    """Run the node for the length of a ``with`` block."""
    node = Node(folder, settings, launcher=launcher)
    node.start()
    try:
        yield node
    finally:
        node.stop()


def build_tiny_model(models_dir: Path) -> Path:
    """Train a network of a few hundred weights to mark what is bright; return its package's folder.

    It finds the lesion of ``stack.modality.make_study`` in seconds, which is all that the rigs need of it.
    """
    import torch
    from safetensors.torch import save_file
    from stack.modality import make_study

    from inference.networks.attention_res_unet import AttentionResUNet
    from inference.preparation import MATRIX, prepare_slices

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two threads wait for each other
    study = make_study(0, slices=2)
    raw = np.stack([instance.pixel_array.astype(np.float32) for instance in study])
    lesion = torch.from_numpy(raw > 475).float()[:, None]
    images = torch.from_numpy(prepare_slices(np.stack([raw])))[..., ::_TRAINING_STRIDE, ::_TRAINING_STRIDE]
    truth = torch.nn.functional.interpolate(lesion, size=images.shape[2:], mode="nearest")

    torch.manual_seed(0)
    arguments = {"in_channels": 1, "out_channels": 1, "channels": [4, 8]}
    network = AttentionResUNet(**arguments)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(_TRAINING_STEPS):
        optimizer.zero_grad()
        logits = network(images)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, truth, pos_weight=torch.tensor(4.0)
        )
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)

    folder = models_dir / MODEL_NAME / MODEL_VERSION
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, weights)
    card = {
        "name": MODEL_NAME,
        "version": MODEL_VERSION,
        "title": "Bright spots of a phantom",
        "task": "segmentation",
        "network": {"builtin": "attention_res_unet", "arguments": arguments},
        "input": {
            "modality": "MR",
            "matrix": MATRIX,
            "roles": [{"name": "flair", "required": True, "any_description": ["*flair*"], "min_images": 5}],
        },
        "labels": [{"value": 1, "name": "Tumour", "concept": "neoplasm", "site": "brain"}],
        "threshold": 0.5,
        "min_component_voxels": 50,
        "intended_use": "Tests.",
        "limits": ["Nothing but phantoms."],
        "training_data": "One phantom.",
        "metrics": {},
        "licence": "Apache-2.0",
        "weights": {
            "files": [{"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}],
            "dtype": "float32",
        },
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    return folder
