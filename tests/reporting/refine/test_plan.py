from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from inference.findings import Laterality, Presence
from reporting.facts import Certainty, Fact, FactKind, Facts
from reporting.language.drawing import draw_facts
from reporting.projection import Zone
from reporting.refine.plan import Says, plan_sentences
from reporting.refine.prompt import describe_planned

BASE = Fact(
    fact_id="boxes/F1",
    alias="F1",
    kind=FactKind.MARKED,
    concept="nodule",
    site="lung",
    noun="nodule",
    site_noun="lung",
    presence=Presence.PRESENT,
    side=None,
    zone=None,
    certainty=Certainty.LOW,
    confidence=0.4,
    sizes=(),
    algorithm="boxes",
)


def facts_of(*changes: dict[str, object]) -> Facts:
    return Facts(
        facts=tuple(
            replace(BASE, fact_id=f"boxes/F{number}", alias=f"F{number}", **change)
            for number, change in enumerate(changes, 1)
        )
    )


def lines(facts: Facts) -> list[str]:
    return [describe_planned(one) for one in plan_sentences(facts)]


@pytest.mark.parametrize("seed", range(60))
def test_every_fact_is_in_exactly_one_sentence(seed):
    facts = draw_facts(Random(seed)).facts
    planned = [fact.alias for one in plan_sentences(facts) for fact in one.facts]
    assert sorted(planned) == sorted(fact.alias for fact in facts.facts)


def test_marks_in_different_places_that_are_alike_share_a_sentence():
    left, right = ({"side": side, "zone": Zone.LOWER} for side in (Laterality.LEFT, Laterality.RIGHT))
    assert lines(facts_of(left, right)) == [
        "Present: F1, F2 possible nodule, left lung, lower zone and right lung, lower zone"
    ]


def test_what_is_sure_and_what_is_not_are_told_apart():
    left, right = {"side": Laterality.LEFT}, {"side": Laterality.RIGHT, "certainty": Certainty.HIGH}
    assert lines(facts_of(left, right)) == [
        "Present: F2 nodule, right lung",
        "Present: F1 possible nodule, left lung",
    ]


def test_two_marks_of_one_model_in_one_place_are_two_sentences_and_the_second_is_further():
    same = {"side": Laterality.LEFT, "zone": Zone.MID}
    first, second = plan_sentences(facts_of(same, same))
    assert (first.is_further, second.is_further) == (False, True)


def test_what_another_model_says_to_the_contrary_stands_in_the_last_sentence_on_the_finding():
    denied = {"presence": Presence.ABSENT, "algorithm": "labels"}
    open_ = {"presence": Presence.UNDETERMINED, "algorithm": "others"}
    assert lines(facts_of(denied, {"side": Laterality.LEFT}, open_)) == [
        (
            "Present: F2 possible nodule, left lung; another algorithm: absent F1; "
            "another algorithm: undetermined F3"
        )
    ]


def test_a_finding_that_one_model_denies_and_another_leaves_open_is_open():
    denied = {"presence": Presence.ABSENT, "algorithm": "labels"}
    open_ = {"presence": Presence.UNDETERMINED, "algorithm": "others"}
    (planned,) = plan_sentences(facts_of(denied, open_))
    assert planned.says is Says.OPEN


def test_long_lists_of_what_is_absent_are_parted_evenly():
    absent = [{"presence": Presence.ABSENT, "noun": f"thing {n}", "concept": f"c{n}"} for n in range(8)]
    assert [len(one.groups) for one in plan_sentences(facts_of(*absent))] == [4, 4]


def test_no_facts_need_no_sentence():
    assert plan_sentences(Facts(facts=())) == ()
