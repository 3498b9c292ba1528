from __future__ import annotations

from pathlib import Path

import pytest

from inference.findings import Laterality, Presence
from inference.training.chest_xray import NIH_LABELS, Film, MarkedBox
from reporting.codes import code_finding, code_site
from reporting.language.film_reports import (
    CONCEPTS,
    film_facts,
    mirror_text,
    present_concepts,
    read_statements,
    stated_present,
    write_film_report,
)
from reporting.projection import Zone


def film(*labels: str, boxes: tuple[MarkedBox, ...] = ()) -> Film:
    return Film(
        path=Path("a.png"), patient_id="1", view="PA", source="nih", labels=frozenset(labels), boxes=boxes
    )


def box(name: str, left: float, top: float) -> MarkedBox:
    return MarkedBox(name=name, left=left, top=top, right=left + 80, bottom=top + 80, source="nih")


def test_every_nih_label_has_a_concept_and_a_site_that_have_codes() -> None:
    assert set(CONCEPTS) == set(NIH_LABELS)
    for concept, site in CONCEPTS.values():
        assert code_finding(concept)
        assert code_site(site)


def test_a_film_without_finding_denies_what_every_report_mentions() -> None:
    assert write_film_report(film_facts(film(), (512, 512))) == (
        "There is no cardiomegaly. There is no consolidation. There is no pleural effusion. "
        "There is no pneumothorax."
    )


def test_boxes_become_places_on_the_patients_side() -> None:
    marked = film("Mass", "Effusion", boxes=(box("Mass", 380, 60), box("Effusion", 40, 380)))
    facts = film_facts(marked, (512, 512))
    mass = next(fact for fact in facts.facts if fact.concept == "mass")
    assert (mass.side, mass.zone) == (Laterality.LEFT, Zone.UPPER)
    assert write_film_report(facts) == (
        "There is no cardiomegaly. There is a mass in the upper zone of the left lung. "
        "There is a pleural effusion on the right side. There is no pneumothorax."
    )


def test_two_places_of_a_finding_share_a_sentence() -> None:
    marked = film("Nodule", boxes=(box("Nodule", 380, 60), box("Nodule", 60, 60)))
    assert (
        "There is a nodule in the upper zone of the left lung and in the upper zone of the right lung."
        in write_film_report(film_facts(marked, (512, 512)))
    )


@pytest.mark.parametrize("label", NIH_LABELS)
def test_what_a_report_says_can_be_read_out_of_it_again(label: str) -> None:
    text = write_film_report(film_facts(film(label), (512, 512)))
    assert stated_present(text) == present_concepts({label})


def test_denials_turns_and_repeats_are_read() -> None:
    text = (
        "The heart size is enlarged. No effusion or pneumothorax. There is no mass, but a nodule is seen. "
        "No focal consolidation; pleural thickening on the left. No atelectasis. Basal atelectasis."
    )
    said = read_statements(text)
    assert said == {
        "cardiomegaly": Presence.PRESENT,
        "effusion": Presence.ABSENT,
        "pneumothorax": Presence.ABSENT,
        "mass": Presence.ABSENT,
        "nodule": Presence.PRESENT,
        "consolidation": Presence.ABSENT,
        "pleural_thickening": Presence.PRESENT,
        "atelectasis": Presence.PRESENT,
    }


def test_text_of_a_mirrored_film_exchanges_the_sides() -> None:
    assert mirror_text("a mass of the left lung, clear right lung") == (
        "a mass of the right lung, clear left lung"
    )
