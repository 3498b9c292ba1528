"""Pure. The grammar of crude chest reports: labels and boxes as facts, facts as plain sentences, and back.

One style, in the order of a reading: heart, lungs, pleura, the rest. What is there is said with its place
where a box shows one; what is not there is said of four findings that every report mentions. A network that
has seen a thousand films learns no more variety than that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from inference.findings import Analysis, Box, Finding, FrameReference, Laterality, ModelIdentity, Presence
from inference.training.chest_xray import Film, MarkedBox
from reporting.facts import Fact, Facts, collect_facts
from reporting.projection import RadiographView

CONCEPTS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "Cardiomegaly": ("cardiomegaly", "heart"),
        "Atelectasis": ("atelectasis", "lung"),
        "Consolidation": ("consolidation", "lung"),
        "Edema": ("edema", "lung"),
        "Emphysema": ("emphysema", "lung"),
        "Fibrosis": ("fibrosis", "lung"),
        "Infiltration": ("infiltration", "lung"),
        "Mass": ("mass", "lung"),
        "Nodule": ("nodule", "lung"),
        "Pneumonia": ("pneumonia", "lung"),
        "Effusion": ("effusion", "pleura"),
        "Pneumothorax": ("pneumothorax", "pleura"),
        "Pleural_Thickening": ("pleural_thickening", "pleura"),
        "Hernia": ("hernia", "thorax"),
    }
)
"""NIH's labels in the order in which a report names them: concept and site, keys of ``codes.py``."""

STATED_ABSENT: Final = ("cardiomegaly", "consolidation", "effusion", "pneumothorax")
"""Concepts whose absence every report states; consolidation's only where the lungs show nothing."""

_NOUNS: Final = MappingProxyType(
    {
        "cardiomegaly": "cardiomegaly",
        "atelectasis": "atelectasis",
        "consolidation": "consolidation",
        "edema": "pulmonary oedema",
        "emphysema": "emphysema",
        "fibrosis": "fibrosis",
        "infiltration": "infiltrate",
        "mass": "mass",
        "nodule": "nodule",
        "pneumonia": "opacity like pneumonia",
        "effusion": "pleural effusion",
        "pneumothorax": "pneumothorax",
        "pleural_thickening": "pleural thickening",
        "hernia": "hernia",
    }
)
_ARTICLES: Final = MappingProxyType(
    {
        "infiltration": "an ",
        "mass": "a ",
        "nodule": "a ",
        "pneumonia": "an ",
        "effusion": "a ",
        "pneumothorax": "a ",
        "hernia": "a ",
        "edema": "signs of ",
        "emphysema": "signs of ",
        "fibrosis": "signs of ",
    }
)
_PATTERNS: Final = MappingProxyType(
    {
        "cardiomegaly": r"cardiomegaly|heart[a-z ]* enlarged|enlarged (?:heart|cardiac silhouette)"
        r"|cardiac enlargement",
        "atelectasis": r"atelecta[a-z]+",
        "consolidation": r"consolidations?",
        "edema": r"o?edema",
        "emphysema": r"emphysema(?:tous)?",
        "fibrosis": r"fibro(?:sis|tic)",
        "infiltration": r"infiltrat[a-z]+",
        "mass": r"mass(?:es)?",
        "nodule": r"nodul(?:e|es|ar)",
        "pneumonia": r"pneumonias?",
        "effusion": r"effusions?",
        "pneumothorax": r"pneumothora(?:x|ces)",
        "pleural_thickening": r"pleural thickening",
        "hernia": r"hernias?",
    }
)
_READ: Final = {concept: re.compile(rf"\b(?:{pattern})\b") for concept, pattern in _PATTERNS.items()}
_DENIED: Final = re.compile(r"\b(?:no|not|without|negative for|free of|clear of|absence of)\b")
_TURN: Final = re.compile(r"\b(?:but|however|although)\b")
_FRAME: Final = FrameReference(sop_instance_uid="2.25.1")
_NOBODY: Final = ModelIdentity(
    name="labels", version="1.0.0", weights_sha256="0" * 64, task="classification", title="Labels"
)
_OTHER_SIDE: Final = {"left": "right", "right": "left"}


def film_facts(film: Film, shape: tuple[int, int]) -> Facts:
    """Return what a data set says of a film, as facts: one for each label, or for each of its boxes.

    Parameters
    ----------
    film : Film
        A frontal film with labels.
    shape : tuple of int
        Rows and columns of the image that its boxes lie on.
    """
    labels = film.labels or frozenset()
    findings: list[Finding] = []
    for name, (concept, site) in CONCEPTS.items():
        boxes = [box for box in film.boxes if box.name == name]
        is_there = name in labels or bool(boxes)
        marks: list[MarkedBox | None] = [*boxes] if boxes else [None]
        for box in marks:
            findings.append(
                Finding(
                    finding_id=f"F{len(findings) + 1}",
                    concept=concept,
                    site=site,
                    presence=Presence.PRESENT if is_there else Presence.ABSENT,
                    confidence=1.0 if is_there else None,
                    box=None
                    if box is None
                    else Box(frame=_FRAME, left=box.left, top=box.top, right=box.right, bottom=box.bottom),
                )
            )
    analysis = Analysis(model=_NOBODY, study_uid="2.25.2", inputs=(), findings=tuple(findings))
    view = RadiographView(rows=shape[0], columns=shape[1], is_frontal=True)
    return collect_facts([analysis], {_FRAME: view})


def write_film_report(facts: Facts) -> str:
    """Return the report of a film's facts, in its one style."""
    by_concept: dict[str, list[Fact]] = {}
    for fact in facts.facts:
        by_concept.setdefault(fact.concept, []).append(fact)
    present = {
        concept: [fact for fact in group if fact.presence is Presence.PRESENT]
        for concept, group in by_concept.items()
    }
    is_lung_clear = not any(present.get(concept) for concept, site in CONCEPTS.values() if site == "lung")
    sentences = []
    for concept, site in CONCEPTS.values():
        if present.get(concept):
            sentences.append(_say_present(present[concept]))
        elif concept in by_concept and concept in STATED_ABSENT and (site != "lung" or is_lung_clear):
            sentences.append(f"There is no {_NOUNS[concept]}.")
    return " ".join(sentences)


def mirror_text(text: str) -> str:
    """Return a text with left and right exchanged."""
    return re.sub(r"\b(left|right)\b", lambda found: _OTHER_SIDE[found.group()], text)


def read_statements(text: str) -> dict[str, Presence]:
    """Return which of the fourteen findings a report states, by rules on its words.

    A word for a finding counts as denied after a denial in the same clause; what is stated once as there is
    there, whatever else is said.
    """
    said: dict[str, Presence] = {}
    for sentence in re.split(r"\.(?:\s|$)|\n|;", text.lower()):
        for clause in _TURN.split(sentence):
            denial = _DENIED.search(clause)
            for concept, pattern in _READ.items():
                for found in pattern.finditer(clause):
                    is_denied = denial is not None and denial.start() < found.start()
                    if not is_denied:
                        said[concept] = Presence.PRESENT
                    else:
                        said.setdefault(concept, Presence.ABSENT)
    return said


def stated_present(text: str) -> frozenset[str]:
    """Return the findings that a report states as there."""
    return frozenset(c for c, presence in read_statements(text).items() if presence is Presence.PRESENT)


def present_concepts(labels: Collection[str]) -> frozenset[str]:
    """Return the concepts of NIH's labels; others have none here."""
    return frozenset(CONCEPTS[name][0] for name in labels if name in CONCEPTS)


def _say_present(facts: list[Fact]) -> str:
    concept = facts[0].concept
    places = list(dict.fromkeys(place for place in map(_place, facts) if place))
    return f"There is {_ARTICLES.get(concept, '')}{_NOUNS[concept]}{_joined(places)}."


def _place(fact: Fact) -> str:
    """Return where a fact lies: zone and side of the lung, side of the pleura; nothing elsewhere."""
    side = {Laterality.LEFT: "left", Laterality.RIGHT: "right"}.get(fact.side) if fact.side else None
    if fact.site == "pleura":
        return f" on the {side} side" if side else (" on both sides" if fact.side else "")
    if fact.site != "lung" or fact.zone is None:
        return ""
    lung = f"the {side} lung" if side else ("both lungs" if fact.side else "the lung")
    return f" in the {fact.zone.value} zone of {lung}"


def _joined(places: Iterable[str]) -> str:
    return " and".join(places)
