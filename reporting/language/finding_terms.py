"""Pure. What this node's findings are called: their sites, phrases in texts, and terms of the HPO.

The keys are those of ``reporting/codes.py``. A finding without an HPO term has none that means the same on a
radiograph; it gets no diseases, never those of a term that is only near. ``match`` says how close a term
is, and is shown with every answer that rests on it.

References
----------
Gargano et al. The Human Phenotype Ontology in 2024. Nucleic Acids Res 2024. doi:10.1093/nar/gkad1005
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from inference.findings import Quantity


class Match(StrEnum):
    """How close a finding is to a phenotype."""

    SAME = "is the sign"
    BROADER = "is within the broader sign"
    ONE_OF = "may be the sign"
    RESEMBLES = "looks like the sign"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhenotypeLink:
    """A term of the Human Phenotype Ontology that a finding leads to; ``name`` is the term's own."""

    term_id: str
    name: str
    match: Match = Match.SAME


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingTerms:
    """What one finding is called.

    Attributes
    ----------
    phrases : tuple of str
        Words for it in texts, in the singular; spelling is made American and plural forms are found too.
    site : str
        Key of its anatomic site in ``reporting/codes.py``.
    phenotypes : tuple of PhenotypeLink
        Terms of the HPO.
    quantities : tuple of Quantity
        What is measured of it where the model outlines it.
    """

    phrases: tuple[str, ...]
    site: str
    phenotypes: tuple[PhenotypeLink, ...] = ()
    quantities: tuple[Quantity, ...] = ()


def _term(term_id: str, name: str, match: Match = Match.SAME) -> PhenotypeLink:
    return PhenotypeLink(term_id=term_id, name=name, match=match)


_BRAIN_TUMOUR: Final = _term("HP:0100006", "Neoplasm of the central nervous system", Match.BROADER)
_VOLUMETRIC: Final = (Quantity.VOLUME, Quantity.LONG_AXIS, Quantity.PERPENDICULAR_AXIS)
_NODULE: Final = _term("HP:0033608", "Pulmonary nodule")
_MASS: Final = _term("HP:0033821", "Pulmonary mass")
_FIBROSIS: Final = FindingTerms(
    phrases=("pulmonary fibrosis", "lung fibrosis", "fibrosis of the lung"),
    site="lung",
    phenotypes=(_term("HP:0002206", "Pulmonary fibrosis"),),
)

FINDING_TERMS: Final = MappingProxyType(
    {
        # Brain MR and head CT
        "neoplasm": FindingTerms(
            phrases=("flair signal abnormality", "flair abnormality", "glioma", "brain tumour"),
            site="brain",
            phenotypes=(_BRAIN_TUMOUR,),
            quantities=_VOLUMETRIC,
        ),
        "tumour": FindingTerms(
            phrases=("brain lesion", "brain tumour", "brain neoplasm", "intracranial mass"),
            site="brain",
            phenotypes=(_BRAIN_TUMOUR,),
        ),
        "intracranial_haemorrhage": FindingTerms(
            phrases=(
                "intracranial haemorrhage",
                "cerebral haemorrhage",
                "intracerebral haemorrhage",
                "brain haemorrhage",
                "subdural haematoma",
                "subarachnoid haemorrhage",
            ),
            site="head",
            phenotypes=(_term("HP:0002170", "Intracranial hemorrhage"),),
        ),
        # Chest radiographs
        "aortic_enlargement": FindingTerms(
            phrases=("aortic enlargement", "enlarged aorta", "aortic aneurysm", "aortic dilatation"),
            site="aorta",
            phenotypes=(_term("HP:0004942", "Aortic aneurysm", Match.ONE_OF),),
        ),
        "atelectasis": FindingTerms(
            phrases=("atelectasis", "collapse of the lung", "lobar collapse"),
            site="lung",
            phenotypes=(_term("HP:0100750", "Atelectasis"),),
        ),
        "calcification": FindingTerms(phrases=("calcification",), site="thorax"),
        "cardiomegaly": FindingTerms(
            phrases=("cardiomegaly", "enlarged heart", "enlarged cardiac silhouette", "cardiothoracic ratio"),
            site="heart",
            phenotypes=(_term("HP:0001640", "Cardiomegaly"),),
        ),
        "consolidation": FindingTerms(
            phrases=("consolidation", "airspace opacity"),
            site="lung",
            phenotypes=(_term("HP:0032177", "Parenchymal consolidation"),),
        ),
        "edema": FindingTerms(
            phrases=("pulmonary oedema", "lung oedema"),
            site="lung",
            phenotypes=(_term("HP:0100598", "Pulmonary edema"),),
        ),
        "effusion": FindingTerms(
            phrases=("pleural effusion", "effusion", "pleural fluid", "fluid around the lung"),
            site="pleura",
            phenotypes=(_term("HP:0002202", "Pleural effusion"),),
        ),
        "emphysema": FindingTerms(
            phrases=("emphysema",),
            site="lung",
            phenotypes=(_term("HP:0002097", "Emphysema"),),
        ),
        "fibrosis": _FIBROSIS,
        "pulmonary_fibrosis": _FIBROSIS,
        "hernia": FindingTerms(
            phrases=("hiatus hernia", "hiatal hernia", "diaphragmatic hernia"),
            site="thorax",
            phenotypes=(
                _term("HP:0002036", "Hiatus hernia", Match.ONE_OF),
                _term("HP:0000776", "Congenital diaphragmatic hernia", Match.ONE_OF),
            ),
        ),
        "ild": FindingTerms(
            phrases=("interstitial pattern", "interstitial lung disease", "interstitial pneumonia"),
            site="lung",
            phenotypes=(_term("HP:0006530", "Abnormal pulmonary interstitial morphology"),),
        ),
        "infiltration": FindingTerms(
            phrases=("pulmonary infiltrate", "lung infiltrate", "infiltrate"),
            site="lung",
            phenotypes=(_term("HP:0002113", "Pulmonary infiltrates"),),
        ),
        "lung_opacity": FindingTerms(
            phrases=("lung opacity", "pulmonary opacity"),
            site="lung",
            phenotypes=(_term("HP:0031457", "Pulmonary opacity"),),
        ),
        "mass": FindingTerms(phrases=("lung mass", "pulmonary mass"), site="lung", phenotypes=(_MASS,)),
        "nodule": FindingTerms(
            phrases=("pulmonary nodule", "lung nodule", "nodule"), site="lung", phenotypes=(_NODULE,)
        ),
        "nodule_mass": FindingTerms(
            phrases=("pulmonary nodule", "lung nodule", "pulmonary mass", "lung mass"),
            site="lung",
            phenotypes=(
                _term(_NODULE.term_id, _NODULE.name, Match.ONE_OF),
                _term(_MASS.term_id, _MASS.name, Match.ONE_OF),
            ),
        ),
        "other_lesion": FindingTerms(phrases=(), site="thorax"),
        "pneumonia": FindingTerms(
            phrases=("pneumonia", "opacity like pneumonia"),
            site="lung",
            phenotypes=(_term("HP:0002090", "Pneumonia", Match.RESEMBLES),),
        ),
        "pneumothorax": FindingTerms(
            phrases=("pneumothorax",),
            site="pleura",
            phenotypes=(_term("HP:0002107", "Pneumothorax"),),
        ),
        "pleural_thickening": FindingTerms(
            phrases=("pleural thickening",),
            site="pleura",
            phenotypes=(_term("HP:0031944", "Pleural thickening"),),
        ),
    }
)  # fmt: skip

QUANTITY_PHRASES: Final = MappingProxyType(
    {
        Quantity.VOLUME: ("volume", "volumetric measurement"),
        Quantity.LONG_AXIS: ("longest diameter", "long axis", "greatest diameter"),
        Quantity.PERPENDICULAR_AXIS: ("perpendicular diameter", "short axis", "bidirectional product"),
        Quantity.AREA: ("area in mm2",),
    }
)
"""Words for what is measured."""
