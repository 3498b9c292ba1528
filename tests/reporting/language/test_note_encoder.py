"""Notes as vectors, by a ClinicalBERT-like folder made here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.language.embedding import EncoderError
from reporting.language.note_encoder import OVERLAP_WORDS, WINDOW_WORDS, open_note_encoder, split_windows

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cough", "fever", "no", "history", "of", "pain", "."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    import torch

    place = tmp_path_factory.mktemp("bert")
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def encoder(folder):
    return open_note_encoder(folder)


def test_a_hub_folder_turns_notes_into_vectors_of_length_one(encoder):
    vectors = encoder.encode(["cough and fever.", "no pain"])
    assert vectors.shape == (2, encoder.dimension) == (2, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert not np.allclose(vectors[0], vectors[1])


def test_a_vector_depends_on_its_own_note_alone(encoder):
    alone = encoder.encode(["history of fever"])
    among = encoder.encode(["cough", "history of fever", "pain " * 400])
    np.testing.assert_allclose(among[1], alone[0], atol=1e-6)


def test_a_long_note_is_read_to_its_end(encoder):
    long = "cough " * (2 * WINDOW_WORDS)
    assert not np.allclose(encoder.encode([long]), encoder.encode([long + "pain " * WINDOW_WORDS]))


def test_a_note_without_words_is_like_nothing(encoder):
    assert encoder.encode([" \n"]).tolist() == [[0.0] * 16]
    assert encoder.encode([]).shape == (0, 16)


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match="safetensors"):
        open_note_encoder(tmp_path)


@given(count=st.integers(0, 700))
def test_windows_hold_every_word_and_overlap(count):
    words = [f"w{n}" for n in range(count)]
    windows = [window.split() for window in split_windows(" ".join(words))]
    assert {word for window in windows for word in window} == set(words)
    assert all(0 < len(window) <= WINDOW_WORDS for window in windows)
    for before, after in itertools.pairwise(windows):
        assert before[-OVERLAP_WORDS:] == after[:OVERLAP_WORDS]
