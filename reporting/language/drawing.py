"""Pure. Random studies as facts: what the models of this node can say, in plausible mixtures.

Grounds to write training texts from. They hold no patient and rest on no data set: which
findings come together, where and how large is drawn here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Final

from inference.findings import Laterality, Presence, Quantity
from reporting import codes
from reporting.draft.words import format_area, format_length, format_volume, has_sides
from reporting.facts import Certainty, Fact, FactKind, Facts, Size
from reporting.projection import Zone
from reporting.recommendations import allow_recommendations
from reporting.refine.prompt import Ground
from reporting.safety import describe_confidence

#: Labels of a chest classifier with their sites.
_CHEST_LABELS: Final = MappingProxyType(
    {
        "atelectasis": "lung",
        "cardiomegaly": "heart",
        "consolidation": "lung",
        "edema": "lung",
        "effusion": "pleura",
        "emphysema": "lung",
        "fibrosis": "lung",
        "hernia": "thorax",
        "infiltration": "lung",
        "mass": "lung",
        "nodule": "lung",
        "pleural_thickening": "pleura",
        "pneumonia": "lung",
        "pneumothorax": "pleura",
    }
)
#: Labels of this node's own classifier, which answers fewer of them.
_OWN_LABELS: Final = (
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
)
#: Boxes of detectors for chest radiographs with their sites.
_CHEST_BOXES: Final = MappingProxyType(
    {
        "aortic_enlargement": "aorta",
        "atelectasis": "lung",
        "calcification": "lung",
        "cardiomegaly": "heart",
        "consolidation": "lung",
        "effusion": "pleura",
        "ild": "lung",
        "infiltration": "lung",
        "lung_opacity": "lung",
        "mass": "lung",
        "nodule": "lung",
        "nodule_mass": "lung",
        "other_lesion": "thorax",
        "pleural_thickening": "pleura",
        "pneumonia": "lung",
        "pneumothorax": "pleura",
        "pulmonary_fibrosis": "lung",
    }
)
_OWN_BOXES: Final = _OWN_LABELS
#: What orders name, in the sentences of `reporting.clinical`.
_CHEST_PROBLEMS: Final = (
    "cough",
    "fever",
    "chest pain",
    "dyspnoea",
    "pneumonia",
    "pneumothorax",
    "pleural effusion",
    "heart failure",
    "lung cancer",
    "smoking",
    "asthma",
)
_HEAD_PROBLEMS: Final = (
    "headache",
    "seizure",
    "dizziness",
    "glioma",
    "intracranial haemorrhage",
    "brain metastases",
    "stroke",
    "head injury",
    "vomiting",
)
_ORDER_FRAMES: Final = (
    ("{} mentions {} at present.", " and "),
    ("{} calls {} possible.", " or "),
    ("{} says that there is no {}.", " and no "),
    ("{} tells of {} in the past.", " and "),
    ("The question is whether there is {1}.", " or "),
)
#: Sentences as a network without facts writes them; right or wrong, they ground nothing.
_CRUDE_CHEST: Final = (
    "the heart is normal in size",
    "the heart is enlarged",
    "the lungs are clear",
    "there is no pleural effusion or pneumothorax",
    "there is a small left pleural effusion",
    "there is an opacity in the right lower lobe",
    "no acute cardiopulmonary abnormality",
    "there are low lung volumes with basilar atelectasis",
    "stable since the prior examination",
    "a nodule of 12 mm is seen in the left upper lobe",
)
_CRUDE_SHARE: Final = 0.25
_CLINICAL_SHARE: Final = 0.35
_LARGEST_LESION_MM: Final = 70.0


@dataclass(slots=True)
class _Ledger:
    """Facts of one study as they are drawn; numbers their aliases."""

    random: Random
    facts: list[Fact]

    def add(
        self,
        kind: FactKind,
        concept: str,
        site: str,
        presence: Presence,
        algorithm: str,
        *,
        side: Laterality | None = None,
        zone: Zone | None = None,
        confidence: float | None = None,
        sizes: tuple[Size, ...] = (),
    ) -> None:
        """Add one fact as `reporting.facts.collect_facts` would state it."""
        is_rated = confidence is not None and presence is Presence.PRESENT
        number = 1 + sum(fact.algorithm == algorithm for fact in self.facts)
        self.facts.append(
            Fact(
                fact_id=f"{algorithm}/F{number}",
                alias=f"F{len(self.facts) + 1}",
                kind=kind,
                concept=concept,
                site=site,
                noun=codes.code_finding(concept).noun,
                site_noun=codes.code_site(site).noun,
                presence=presence,
                side=side,
                zone=zone,
                certainty=Certainty(describe_confidence(confidence or 0.0))
                if is_rated
                else Certainty.UNSTATED,
                confidence=confidence,
                sizes=sizes,
                algorithm=algorithm,
            )
        )


def draw_facts(random: Random, kinds: Sequence[str] = ()) -> Ground:
    """Return one random study of any kind that this node reads.

    Parameters
    ----------
    random : random.Random
        Equal states give equal studies.
    kinds : sequence of str
        Keys of `STUDY_KINDS` to draw from; all of them, chest radiographs most often, if empty.
    """
    kind = random.choice(list(kinds)) if kinds else random.choices(list(STUDY_KINDS), _WEIGHTS)[0]
    ledger = _Ledger(random, [])
    examination = STUDY_KINDS[kind](ledger)
    facts = Facts(facts=tuple(ledger.facts))
    is_chest = kind.startswith("chest")
    clinical: tuple[str, ...] = ()
    if random.random() < _CLINICAL_SHARE:
        clinical = _draw_order(random, _CHEST_PROBLEMS if is_chest else _HEAD_PROBLEMS)
    crude: tuple[str, ...] = ()
    if is_chest and random.random() < _CRUDE_SHARE:
        crude = tuple(f"{said}." for said in random.sample(_CRUDE_CHEST, random.randint(1, 4)))
    return Ground(
        facts=facts,
        examination=examination,
        clinical=clinical,
        crude=crude,
        recommendations=allow_recommendations(facts),
    )


def _draw_order(random: Random, problems: Sequence[str]) -> tuple[str, ...]:
    """Return one or two sentences about the patient's case, as an order gives them."""
    sentences = []
    for frame, word in random.sample(_ORDER_FRAMES, random.randint(1, 2)):
        said = word.join(random.sample(list(problems), random.randint(1, 2)))
        sentences.append(frame.format(random.choice(("The order", "The record")), said))
    return tuple(sentences)


def _draw_chest_labels(ledger: _Ledger) -> str:
    _add_labels(ledger, _some_labels(ledger.random), present_share=_present_share(ledger.random))
    return _chest_name(ledger.random)


def _draw_chest_boxes(ledger: _Ledger) -> str:
    _add_boxes(ledger, ledger.random.randint(1, 4))
    return _chest_name(ledger.random)


def _draw_chest_both(ledger: _Ledger) -> str:
    """Draw labels and boxes of two models, which agree more often than not."""
    random = ledger.random
    first = ledger.random.random() < 0.5  # noqa: PLR2004
    parts: list[Callable[[], None]] = [
        lambda: _add_labels(ledger, _some_labels(random), present_share=_present_share(random)),
        lambda: _add_boxes(ledger, random.randint(1, 3)),
    ]
    for part in parts if first else reversed(parts):
        part()
    return _chest_name(random)


def _draw_brain_lesions(ledger: _Ledger) -> str:
    random = ledger.random
    name = random.choice(("MR of the brain", "MR of the brain", "MR of the head", "MR"))
    if random.random() < 0.12:  # noqa: PLR2004
        ledger.add(FactKind.LABEL, "neoplasm", "brain", Presence.ABSENT, "brain-lesions")
        return name
    for _ in range(random.choices((1, 2, 3), (6, 3, 1))[0]):
        ledger.add(
            FactKind.OUTLINED,
            "neoplasm",
            "brain",
            Presence.PRESENT,
            "brain-lesions",
            side=_side(random),
            confidence=random.uniform(0.55, 0.99) if random.random() < 0.9 else None,  # noqa: PLR2004
            sizes=_lesion_sizes(random),
        )
    return name


def _draw_head_ct(ledger: _Ledger) -> str:
    _add_head_label(ledger, "head-ct")
    return ledger.random.choice(("CT of the brain", "CT of the brain", "CT of the head", "CT"))


def _draw_head_both(ledger: _Ledger) -> str:
    """Draw a lesion on MR, and a sign on CT that a fusion network adds."""
    random = ledger.random
    _draw_brain_lesions(ledger)
    for _ in range(random.randint(1, 2)):
        _add_head_label(ledger, random.choice(("head-ct", "head-fusion")))
    return random.choice(("MR of the brain and CT of the brain", "CT of the brain and MR of the brain"))


def _draw_brain_volumes(ledger: _Ledger) -> str:
    random = ledger.random
    total = random.uniform(900, 1600)
    volumes = {
        "brain_volume": total,
        "gray_matter": total * random.uniform(0.48, 0.6),
        "white_matter": total * random.uniform(0.36, 0.46),
        "cerebrospinal_fluid": total * random.uniform(0.12, 0.3),
    }
    for concept in sorted(random.sample(list(volumes), random.randint(1, 4)), key=list(volumes).index):
        ledger.add(
            FactKind.ANATOMY,
            concept,
            "brain",
            Presence.PRESENT,
            "brain-volumes",
            confidence=random.uniform(0.8, 0.99) if random.random() < 0.3 else None,  # noqa: PLR2004
            sizes=(_size(Quantity.VOLUME, volumes[concept]),),
        )
    return "MR of the brain"


STUDY_KINDS: Final = MappingProxyType(
    {
        "chest_labels": _draw_chest_labels,
        "chest_boxes": _draw_chest_boxes,
        "chest_both": _draw_chest_both,
        "brain_lesions": _draw_brain_lesions,
        "head_ct": _draw_head_ct,
        "head_both": _draw_head_both,
        "brain_volumes": _draw_brain_volumes,
    }
)
"""The kinds of study: each adds its facts and returns the examination's name."""
_WEIGHTS: Final = (5, 4, 6, 4, 1, 2, 2)


def _chest_name(random: Random) -> str:
    return random.choices(("chest radiograph", "frontal chest radiograph", ""), (8, 1, 1))[0]


def _present_share(random: Random) -> float:
    """Return how many of a study's labels are present: none in every fifth study."""
    return 0.0 if random.random() < 0.2 else random.uniform(0.1, 0.5)  # noqa: PLR2004


def _some_labels(random: Random) -> list[str]:
    if random.random() < 0.5:  # noqa: PLR2004
        return list(_OWN_LABELS)
    return sorted(random.sample(list(_CHEST_LABELS), random.randint(2, len(_CHEST_LABELS))))


def _add_labels(ledger: _Ledger, labels: Sequence[str], *, present_share: float) -> None:
    random = ledger.random
    for concept in labels:
        drawn = random.random()
        if drawn < present_share:
            presence, confidence = Presence.PRESENT, random.uniform(0.3, 0.98)
        elif drawn > 0.9:  # noqa: PLR2004
            presence, confidence = Presence.UNDETERMINED, random.uniform(0.2, 0.6)
        else:
            presence, confidence = Presence.ABSENT, random.uniform(0.01, 0.2)
        ledger.add(
            FactKind.LABEL, concept, _CHEST_LABELS[concept], presence, "chest-labels", confidence=confidence
        )


def _add_boxes(ledger: _Ledger, number: int) -> None:
    random = ledger.random
    boxes = list(_OWN_BOXES) if random.random() < 0.5 else list(_CHEST_BOXES)  # noqa: PLR2004
    present = [fact.concept for fact in ledger.facts if fact.presence is Presence.PRESENT]
    marked: set[str] = set()
    for _ in range(number):
        boxes = [concept for concept in boxes if has_sides(_CHEST_BOXES[concept]) or concept not in marked]
        agreed = [concept for concept in present if concept in boxes]
        concept = random.choice(agreed) if agreed and random.random() < 0.5 else random.choice(boxes)  # noqa: PLR2004
        marked.add(concept)
        is_placed = has_sides(_CHEST_BOXES[concept]) and random.random() < 0.9  # noqa: PLR2004
        is_sized = random.random() < 0.1 and concept in {"nodule", "mass", "nodule_mass", "lung_opacity"}  # noqa: PLR2004
        ledger.add(
            FactKind.MARKED,
            concept,
            _CHEST_BOXES[concept],
            Presence.PRESENT,
            "chest-boxes",
            side=_side(random) if is_placed else None,
            zone=random.choice(list(Zone)) if is_placed else None,
            confidence=random.uniform(0.3, 0.98),
            sizes=_box_sizes(random) if is_sized else (),
        )


def _add_head_label(ledger: _Ledger, algorithm: str) -> None:
    random = ledger.random
    presence = random.choices((Presence.PRESENT, Presence.ABSENT, Presence.UNDETERMINED), (4, 4, 2))[0]
    concept = "intracranial_haemorrhage" if random.random() < 0.8 else "tumour"  # noqa: PLR2004
    ledger.add(FactKind.LABEL, concept, "brain", presence, algorithm, confidence=random.uniform(0.05, 0.98))


def _side(random: Random) -> Laterality | None:
    sides = (Laterality.LEFT, Laterality.RIGHT, Laterality.BILATERAL, None)
    return random.choices(sides, (9, 9, 3, 1))[0]


def _lesion_sizes(random: Random) -> tuple[Size, ...]:
    long_axis = random.uniform(4, _LARGEST_LESION_MM)
    across = long_axis * random.uniform(0.4, 0.95)
    volume = 0.52 * long_axis * across * across / 1000 * random.uniform(0.6, 1.1)
    sizes = [_size(Quantity.VOLUME, volume)] if random.random() < 0.95 else []  # noqa: PLR2004
    if random.random() < 0.85:  # noqa: PLR2004
        sizes.append(_size(Quantity.LONG_AXIS, long_axis))
        if random.random() < 0.95:  # noqa: PLR2004
            sizes.append(_size(Quantity.PERPENDICULAR_AXIS, across))
    return tuple(sizes)


def _box_sizes(random: Random) -> tuple[Size, ...]:
    long_axis = random.uniform(6, 60)
    across = long_axis * random.uniform(0.5, 0.98)
    sizes = [_size(Quantity.AREA, 0.75 * long_axis * across)] if random.random() < 0.4 else []  # noqa: PLR2004
    sizes.append(_size(Quantity.LONG_AXIS, long_axis))
    sizes.append(_size(Quantity.PERPENDICULAR_AXIS, across))
    return tuple(sizes)


def _size(quantity: Quantity, value: float) -> Size:
    unit, write = {
        Quantity.VOLUME: ("mL", format_volume),
        Quantity.AREA: ("mm2", format_area),
        Quantity.LONG_AXIS: ("mm", format_length),
        Quantity.PERPENDICULAR_AXIS: ("mm", format_length),
    }[quantity]
    return Size(quantity=quantity, value=value, unit=unit, text=write(value))
