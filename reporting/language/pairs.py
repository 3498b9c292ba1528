"""Adapter: training pairs: a prompt and the answer that a model should give.

Those of the report grammar are drawn from seeds and parted so that no training prompt can
come back in a test: the facts of a study decide by a hash to which part it belongs, and
some combinations of findings are held back from training altogether. A site adds its own
pairs as JSONL; licensed text sets are read where they lie and never copied.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

from dicom_node.errors import PermanentError
from inference.findings import Presence
from reporting.language.grammar import draw_facts, write_answer_sentences
from reporting.refine.answer import CitedSentence, UnusableAnswerError, parse_answer, write_answer
from reporting.refine.prompt import SYSTEM, Ground, build_request

_BUCKETS: Final = 10
_HELD_BACK_OF: Final = 7
"""One combination of two findings in so many is never trained on."""
_MAX_DRAWS: Final = 400
_NOTE_SYSTEM: Final = "You write clinical notes. Use only what is said."


class PairsError(PermanentError):
    """Training pairs cannot be read; the message says which line or file."""


class Split(StrEnum):
    """The parts of the drawn pairs."""

    TRAINING = "training"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One prompt and its answer, as text.

    Attributes
    ----------
    ground : Ground or None
        What the prompt was made from; None for pairs that were read from a file.
    source : str
        ``grammar``, or the file.
    """

    system: str
    user: str
    answer: str
    ground: Ground | None = None
    source: str = "grammar"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource:
    """A set of texts that pairs can be read from.

    Attributes
    ----------
    is_shippable : bool
        Whether weights that were trained on it may be given on.
    """

    name: str
    licence: str
    file: str
    is_shippable: bool


#: Licensed sets, by the name that a recipe's ``texts`` uses; files are looked for under the data folder.
TEXT_SOURCES: Final = MappingProxyType(
    {
        source.name: source
        for source in (
            TextSource(
                name="mts_dialog",
                licence="CC BY 4.0",
                file="text/mts_dialog/MTS-Dialog-TrainingSet.csv",
                is_shippable=True,
            ),
            TextSource(
                name="aci_bench", licence="CC BY 4.0", file="text/aci_bench/train.csv", is_shippable=True
            ),
            TextSource(
                name="openi",
                licence="CC BY-NC-ND 4.0",
                file="openi_reports/NLMCXR_reports.tgz",
                is_shippable=False,
            ),
        )
    }
)


def draw_pairs(
    split: Split, number: int, *, seed: int = 0, kinds: Sequence[str] = (), most_facts: int = 40
) -> tuple[Pair, ...]:
    """Return drawn pairs of one part; equal arguments give equal pairs.

    Parameters
    ----------
    kinds : sequence of str
        Kinds of study (`drawing.STUDY_KINDS`); all of them if empty.
    most_facts : int
        Studies with more facts are passed over: short answers train faster.
    """
    drawn = (_draw(split, f"{seed}/{index}", kinds, most_facts) for index in range(number))
    return tuple(pair_of(ground, sentences) for ground, sentences in drawn)


def pair_of(ground: Ground, sentences: Sequence[CitedSentence]) -> Pair:
    """Return a study and its report as the texts that a model sees and answers."""
    request = build_request(ground)
    return Pair(system=request.system, user=request.user, answer=write_answer(sentences), ground=ground)


def part_of(ground: Ground) -> Split:
    """Return the part that a study belongs to: by its facts alone, however it is worded.

    Every study with a held-back combination is a test study.
    """
    if is_held_back(ground):
        return Split.TEST
    bucket = _hash("/".join(sorted(_describe(ground)))) % _BUCKETS
    return {8: Split.VALIDATION, 9: Split.TEST}.get(bucket, Split.TRAINING)


def is_held_back(ground: Ground) -> bool:
    """Say whether two findings are present together that no training study shows together."""
    present = sorted({fact.concept for fact in ground.facts.with_presence(Presence.PRESENT)})
    return any(_hash(f"{first}+{second}") % _HELD_BACK_OF == 0 for first, second in combinations(present, 2))


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read a site's own pairs: one JSON object a line with ``user`` and ``answer``, perhaps ``system``.

    Parameters
    ----------
    path : Path
        UTF-8. ``answer`` is the answer's text, or the object of sections that the prompt asks for.

    Raises
    ------
    PairsError
        If the file cannot be read, or a line has another form; lines are counted from 1.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise PairsError(f"The pairs in {path.name} cannot be read: give a UTF-8 file.") from exc
    pairs = tuple(_read_line(line, number, path) for number, line in enumerate(lines, 1) if line.strip())
    if not pairs:
        raise PairsError(f"{path.name} holds no pairs: write one JSON object a line.")
    return pairs


def read_texts(name: str, data: Path) -> tuple[Pair, ...]:
    """Read the training part of a licensed text set.

    Parameters
    ----------
    name : str
        Key of `TEXT_SOURCES`.
    data : Path
        The data folder, as ``../shared/data``.

    Raises
    ------
    PairsError
        If the set is unknown, or its file is missing or damaged.
    """
    if name not in TEXT_SOURCES:
        raise PairsError(f"There is no text set {name!r}: use {', '.join(TEXT_SOURCES)}.")
    path = data / TEXT_SOURCES[name].file
    if not path.is_file():
        raise PairsError(f"The text set {name} lacks {TEXT_SOURCES[name].file} under the data folder.")
    try:
        return tuple(_READERS[name](path))
    except (OSError, UnicodeDecodeError, KeyError, csv.Error, tarfile.TarError) as exc:
        raise PairsError(f"The text set {name} has another form than expected.") from exc


def _draw(
    split: Split, key: str, kinds: Sequence[str], most_facts: int
) -> tuple[Ground, tuple[CitedSentence, ...]]:
    """Draw studies until one belongs to the part and is short enough."""
    random = Random(f"{split.value}/{key}")  # noqa: S311 - not a secret
    for _ in range(_MAX_DRAWS):
        ground = draw_facts(random, kinds)
        if len(ground.facts.facts) <= most_facts and part_of(ground) is split:
            return ground, write_answer_sentences(ground, random)
    raise PairsError("No study of these kinds has so few facts: allow more of either.")


def _describe(ground: Ground) -> list[str]:
    return [
        f"{f.concept} {f.presence.value} {f.side} {f.zone} {f.certainty.value} {[s.text for s in f.sizes]}"
        for f in ground.facts.facts
    ]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _read_line(line: str, number: int, path: Path) -> Pair:
    where = f"Line {number} of {path.name}"
    try:
        value = json.loads(line)
    except json.JSONDecodeError as exc:
        raise PairsError(f"{where} is not valid JSON.") from exc
    if not isinstance(value, dict) or set(value) - {"system", "user", "answer"}:
        raise PairsError(f"{where} must be an object with user, answer and perhaps system.")
    user, answer, system = value.get("user"), value.get("answer"), value.get("system", SYSTEM)
    if isinstance(answer, dict):
        try:
            answer = write_answer(parse_answer(json.dumps(answer)))
        except UnusableAnswerError as exc:
            raise PairsError(f"{where}: the answer has not the sections that the prompt asks for.") from exc
    if not (
        isinstance(user, str) and user and isinstance(answer, str) and answer and isinstance(system, str)
    ):
        raise PairsError(f"{where}: user and answer must be texts.")
    return Pair(system=system, user=user, answer=answer, source=path.name)


def _read_mts(path: Path) -> Iterator[Pair]:
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            user = f"Write the section {row['section_header']} of the note.\n\n{row['dialogue']}"
            yield Pair(system=_NOTE_SYSTEM, user=user, answer=row["section_text"], source="mts_dialog")


def _read_aci(path: Path) -> Iterator[Pair]:
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            user = f"Write the note.\n\n{row['dialogue']}"
            yield Pair(system=_NOTE_SYSTEM, user=user, answer=row["note"], source="aci_bench")


def _read_openi(path: Path) -> Iterator[Pair]:
    """Yield reports of Open-i: from the index terms to findings and impression."""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".xml") else None
            if file is not None:
                yield from _read_openi_report(file.read().decode("utf-8", errors="replace"))


def _read_openi_report(text: str) -> Iterator[Pair]:
    found = dict(re.findall(r'<AbstractText Label="(FINDINGS|IMPRESSION)">([^<]+)<', text))
    terms = re.findall(r"<(?:major|automatic)>([^<]+)<", text)
    if len(found) == 2 and terms:  # noqa: PLR2004
        user = f"Examination: chest radiograph\nIndex terms: {'; '.join(dict.fromkeys(terms))}"
        answer = f"Findings: {found['FINDINGS']}\nImpression: {found['IMPRESSION']}"
        yield Pair(system="You word radiology reports.", user=user, answer=answer, source="openi")


_READERS: Final = MappingProxyType({"mts_dialog": _read_mts, "aci_bench": _read_aci, "openi": _read_openi})
