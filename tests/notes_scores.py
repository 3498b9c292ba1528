"""How well problems are recognised: the hand-made cases, what was said of them, and the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import yaml

from reporting.clinical.problem import ClinicalProblem, Experiencer, Polarity, SourceKind, SourceText, Time

CASES = Path(__file__).parent / "reporting" / "clinical" / "notes_cases.yaml"
_POLARITY = {"neg": Polarity.NEGATED, "ask": Polarity.UNCERTAIN, "poss": Polarity.UNCERTAIN}
_TIME = {"hist": Time.HISTORICAL, "plan": Time.PLANNED}
#: What is scored once a problem is found: the value that counts as a positive.
ASPECTS = ("problem", "negation", "question or doubt", "earlier", "planned", "relative")

Said = tuple[str, str, str, str]


def read_cases(part):
    """Return (text, what must be recognised) of ``develop`` or ``held_back``."""
    rows = yaml.safe_load(CASES.read_text(encoding="utf-8"))[part]
    return [(row["text"], [_expect(problem) for problem in row["problems"]]) for row in rows]


def as_source(text):
    return SourceText(kind=SourceKind.ORDER, origin="case", text=text)


def say(problem: ClinicalProblem) -> Said:
    return (
        problem.concept,
        str(problem.polarity),
        str(problem.time),
        str(problem.experiencer),
    )


def _expect(words: str) -> Said:
    concept, *marks = words.split()
    polarity = next((_POLARITY[m] for m in marks if m in _POLARITY), Polarity.PRESENT)
    time = next((_TIME[m] for m in marks if m in _TIME), Time.CURRENT)
    experiencer = Experiencer.FAMILY if "fam" in marks else Experiencer.PATIENT
    return concept, str(polarity), str(time), str(experiencer)


def count(pairs: Iterable[tuple[list[Said], list[Said]]]) -> dict[str, Counter[str]]:
    """Return true positives, false positives and false negatives per aspect over (expected, said)."""
    counts = {aspect: Counter() for aspect in ASPECTS}
    for expected, said in pairs:
        left = list(said)
        for wanted in expected:
            found = next((s for s in left if s == wanted), None) or next(
                (s for s in left if s[0] == wanted[0]), None
            )
            if found is None:
                counts["problem"]["fn"] += 1
                continue
            left.remove(found)
            counts["problem"]["tp"] += 1
            for aspect, place, value in (
                ("negation", 1, "negated"),
                ("question or doubt", 1, "uncertain"),
                ("earlier", 2, "historical"),
                ("planned", 2, "planned"),
                ("relative", 3, "family"),
            ):
                is_wanted, is_said = wanted[place] == value, found[place] == value
                if is_wanted or is_said:
                    counts[aspect]["tp" if is_wanted and is_said else "fp" if is_said else "fn"] += 1
        counts["problem"]["fp"] += len(left)
    return counts


def figures(counter: Counter[str]) -> tuple[float, float, float]:
    """Return precision, recall and F1."""
    tp, fp, fn = counter["tp"], counter["fp"], counter["fn"]
    precision, recall = tp / max(tp + fp, 1), tp / max(tp + fn, 1)
    return precision, recall, 2 * tp / max(2 * tp + fp + fn, 1)
