from collections import Counter
from random import Random

import pytest

from inference.findings import Laterality, Presence
from reporting.checker import check_sentences
from reporting.facts import Certainty, FactKind
from reporting.language.grammar import STUDY_KINDS, draw_facts, write_answer_sentences
from reporting.refine.answer import parse_answer, write_answer
from reporting.refine.prompt import Ground
from reporting.text import SectionName

STUDIES = 400
HEDGES = ("possible", "suspected", "may ")
OPEN = ("determined",)


def _drawn(seed):
    ground = draw_facts(Random(seed))
    return ground, write_answer_sentences(ground, Random(seed + 1))


@pytest.fixture(scope="module")
def reports():
    return [_drawn(seed) for seed in range(STUDIES)]


def _of(sentences, section):
    return [one for one in sentences if one.section is section]


def test_every_fact_is_cited_under_findings_exactly_once(reports):
    for ground, sentences in reports:
        cited = Counter(alias for one in _of(sentences, SectionName.FINDINGS) for alias in one.aliases)
        assert cited == Counter(fact.alias for fact in ground.facts.facts)


def test_every_present_finding_stands_in_the_impression_too(reports):
    for ground, sentences in reports:
        cited = {alias for one in _of(sentences, SectionName.IMPRESSION) for alias in one.aliases}
        present = ground.facts.with_presence(Presence.PRESENT)
        assert {fact.alias for fact in present if fact.kind is not FactKind.ANATOMY} <= cited
        assert cited


def test_recommendations_are_copied(reports):
    for ground, sentences in reports:
        said = [(one.text, one.aliases) for one in _of(sentences, SectionName.RECOMMENDATION)]
        assert said == [(one.text, (one.alias,)) for one in ground.recommendations]


def test_sizes_are_copied_as_the_prompt_writes_them(reports):
    for ground, sentences in reports:
        for fact in ground.facts.facts:
            said = " ".join(
                one.text for one in _of(sentences, SectionName.FINDINGS) if fact.alias in one.aliases
            )
            assert all(size.text in said for size in fact.sizes)


def test_only_what_is_of_high_confidence_is_said_without_a_hedge(reports):
    for ground, sentences in reports:
        for one in sentences:
            facts = [ground.facts.by_alias(alias) for alias in one.aliases]
            present = [
                f for f in facts if f and f.presence is Presence.PRESENT and f.kind is not FactKind.ANATOMY
            ]
            if present:
                is_sure = all(fact.certainty is Certainty.HIGH for fact in present)
                assert any(word in one.text.lower() for word in HEDGES) is not is_sure


def test_no_side_is_said_that_no_cited_fact_has(reports):
    for ground, sentences in reports:
        for one in sentences:
            sides = {fact.side for fact in ground.facts.facts if fact.alias in one.aliases}
            words = set(one.text.lower().replace(",", " ").replace(".", " ").split())
            assert ("left" not in words) or Laterality.LEFT in sides
            assert ("right" not in words) or Laterality.RIGHT in sides


def test_what_is_undetermined_is_said_to_be(reports):
    for ground, sentences in reports:
        for fact in ground.facts.with_presence(Presence.UNDETERMINED):
            said = [one.text for one in _of(sentences, SectionName.FINDINGS) if fact.alias in one.aliases]
            assert any(word in said[0] for word in OPEN)


def test_disagreement_is_said_in_one_sentence_that_cites_both(reports):
    seen = 0
    for ground, sentences in reports:
        by_noun = {}
        for fact in ground.facts.facts:
            by_noun.setdefault(fact.noun, []).append(fact)
        for group in by_noun.values():
            if {Presence.PRESENT, Presence.ABSENT} <= {fact.presence for fact in group}:
                seen += 1
                absent = next(fact for fact in group if fact.presence is Presence.ABSENT)
                said = next(one for one in sentences if absent.alias in one.aliases)
                assert "another algorithm" in said.text or "two algorithms" in said.text
                assert any(f.alias in said.aliases for f in group if f.presence is Presence.PRESENT)
    assert seen > 5


def test_a_report_survives_the_json_that_a_model_is_trained_on(reports):
    assert all(parse_answer(write_answer(sentences)) == sentences for _, sentences in reports)


def test_every_report_passes_the_checker(reports):
    assert [check_sentences(sentences, ground) for ground, sentences in reports] == [()] * STUDIES


def test_equal_seeds_write_equal_reports():
    assert _drawn(7) == _drawn(7)


def test_one_study_is_worded_in_many_ways():
    ground = draw_facts(Random(3), ["chest_both"])
    texts = {write_answer_sentences(ground, Random(seed)) for seed in range(300)}
    assert len(texts) > 250
    lone = draw_facts(Random(5), ["chest_boxes"])
    said = {
        one.text
        for seed in range(600)
        for one in write_answer_sentences(lone, Random(seed))
        if one.aliases == ("F1",) and one.section is SectionName.FINDINGS
    }
    assert len(said) > 50


def test_every_kind_of_study_can_be_drawn_and_written():
    for kind in STUDY_KINDS:
        for seed in range(30):
            ground = draw_facts(Random(seed), [kind])
            assert ground.facts.facts
            assert write_answer_sentences(ground, Random(seed))


def test_a_study_without_facts_gets_the_advice_alone():
    ground = draw_facts(Random(0))
    empty = Ground(facts=type(ground.facts)(facts=()), recommendations=ground.recommendations)
    sections = {one.section for one in write_answer_sentences(empty, Random(0))}
    assert sections == {SectionName.RECOMMENDATION}
