"""Adapter: the crude report in a run's folder, from the step that reads images to the one that words them.

Crude sentences are what a network worded from pixels (`inference.report_writing`). Nothing has verified them:
they may be shown to a language model as such, and what findings do not support is listed in the provenance as
not included. They are never copied into a report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dicom_node.errors import PermanentError

CRUDE_FILES: Final = "crude-*.json"
"""Files of crude reports in a run's folder, one a model."""

_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9@._-]+")


class CrudeReportError(PermanentError):
    """A run's crude report is damaged: requeue the run, so that every step runs again."""


def write_crude(folder: Path, model: str, sentences: Sequence[str]) -> Path:
    """Keep what a model worded, complete or not at all.

    Parameters
    ----------
    folder : Path
        The run's folder.
    model : str
        ``name@version``.
    sentences : sequence of str
        The crude report; empty where the model gave none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"crude-{_NOT_PLAIN.sub('_', model)}.json"
    partial = path.with_name(f".{path.name}.part")
    content = {"model": model, "sentences": list(sentences)}
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(path)
    return path


def crude_sentences(folder: Path) -> tuple[str, ...]:
    """Return the crude sentences of a run, of all models that worded some; unverified.

    Parameters
    ----------
    folder : Path
        The run's folder.

    Raises
    ------
    CrudeReportError
        If a file is not what `write_crude` wrote.
    """
    said: dict[str, None] = {}
    for path in sorted(folder.glob(CRUDE_FILES)):
        try:
            sentences = json.loads(path.read_text(encoding="utf-8"))["sentences"]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise CrudeReportError(
                "A crude report of the run is damaged: requeue it, so that every step runs again."
            ) from exc
        if not isinstance(sentences, list) or not all(isinstance(one, str) for one in sentences):
            raise CrudeReportError("A crude report of the run is damaged: requeue the run.")
        said |= dict.fromkeys(sentences)
    return tuple(said)
