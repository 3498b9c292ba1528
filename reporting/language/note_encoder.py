"""Pure. A clinical note as one vector, by any local text encoder: ClinicalBERT and its kind, or MiniLM.

Encoders read a few hundred tokens; a discharge letter has thousands. A note is read in
windows that overlap, and the vectors of its windows are averaged by their length. The
encoder comes from `reporting.language.embedding.open_encoder`, which takes a hub folder
(``emilyalsentzer/Bio_ClinicalBERT`` saved as safetensors) or the embedded default.

References
----------
Alsentzer et al., Publicly available clinical BERT embeddings, arXiv:1904.03323.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from reporting.language.embedding import TextEncoder, open_encoder

#: Words of a window: below the 256 tokens of the embedded default at the 1.3 tokens a word of clinical text.
WINDOW_WORDS: Final = 160
#: Words that a window repeats of the one before.
OVERLAP_WORDS: Final = 20


class NoteEncoder:
    """Turns notes of any length into vectors of length 1.

    Parameters
    ----------
    encoder : TextEncoder
        Reads one window.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    @property
    def identity(self) -> str:
        """What makes vectors comparable."""
        return self._encoder.identity

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._encoder.dimension

    def encode(self, notes: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (N, dimension) float32 vectors, one a note, in the order of the notes.

        A note without words is zeros: it is like nothing.
        """
        return np.array([self._encode(note) for note in notes], np.float32).reshape(-1, self.dimension)

    def _encode(self, note: str) -> npt.NDArray[np.float32]:
        windows = split_windows(note)
        if not windows:
            return np.zeros(self.dimension, np.float32)
        weights = np.array([len(window.split()) for window in windows], np.float32)
        mean = np.average(self._encoder.encode(windows), axis=0, weights=weights)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def open_note_encoder(folder: Path | None = None) -> NoteEncoder:
    """Load a note encoder.

    Parameters
    ----------
    folder : Path or None
        A local hub folder with config.json, tokenizer and safetensors; None takes the embedded MiniLM.

    Raises
    ------
    EncoderError
        If a package or a file is missing.
    """
    return NoteEncoder(open_encoder(folder))


def split_windows(note: str) -> tuple[str, ...]:
    """Return a note in overlapping windows of words; none for a note without words."""
    words = note.split()
    step = WINDOW_WORDS - OVERLAP_WORDS
    starts = range(0, max(len(words) - OVERLAP_WORDS, min(len(words), 1)), step)
    return tuple(" ".join(words[start : start + WINDOW_WORDS]) for start in starts)
