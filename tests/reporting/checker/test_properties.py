"""Laws of the checker: what one change to a faithful text does, and what no text can do."""

import time
from dataclasses import replace
from random import Random

import pytest
from checker_mutations import MUTATIONS
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.findings import (
    Analysis,
    Box,
    Finding,
    FrameReference,
    Laterality,
    Measurement,
    ModelIdentity,
    Presence,
    Quantity,
    SeriesInput,
)
from reporting import codes
from reporting.checker import check_sentences, default_lexicon, extract_statements
from reporting.checker.lexicon import Part
from reporting.draft import draft_report
from reporting.facts import collect_facts
from reporting.language.grammar import draw_facts, write_answer_sentences
from reporting.projection import RadiographView
from reporting.refine.answer import CitedSentence
from reporting.refine.prompt import Ground
from reporting.text import SectionName

SEEDS = st.integers(0, 2**32)
#: How long a report may take, on a machine that does other things too.
MOST_SECONDS = 0.02
_WORDED = (SectionName.FINDINGS, SectionName.IMPRESSION)
_SITES = {"neoplasm": "brain", "intracranial_haemorrhage": "head", "tumour": "brain", "cardiomegaly": "heart"}
_SITES |= {"aortic_enlargement": "aorta", "effusion": "pleura", "pneumothorax": "pleura"}
_SITES |= {"pleural_thickening": "pleura", "hernia": "thorax", "other_lesion": "thorax"}
_SITES |= dict.fromkeys(
    ("brain", "brain_volume", "gray_matter", "white_matter", "cerebrospinal_fluid"), "brain"
)
_FRAME = FrameReference(sop_instance_uid="1.2.3")
_VIEWS = {_FRAME: RadiographView(rows=1000, columns=1000, is_frontal=True)}


@pytest.mark.parametrize("kind", sorted(MUTATIONS))
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_any_one_change_to_a_faithful_text_is_refused(kind, seed):
    ground = draw_facts(Random(seed))
    text = write_answer_sentences(ground, Random(seed + 1))
    changed = MUTATIONS[kind](text, ground, Random(seed + 2))
    if changed is not None and changed != text:
        assert check_sentences(changed, ground)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, data=st.data())
def test_a_sentence_on_a_finding_outside_the_facts_is_refused(seed, data):
    ground = draw_facts(Random(seed))
    text = write_answer_sentences(ground, Random(seed + 1))
    known = {fact.concept for fact in ground.facts.facts}
    phrases = [
        " ".join(words)
        for group in default_lexicon().phrases.values()
        for words, entry in group
        if entry.part is Part.CONCEPT and known.isdisjoint(entry.concepts) and words != ("brain",)
    ]
    frame = data.draw(
        st.sampled_from(["A {} is seen.", "No {}.", "Possible {}.", "{}", "The {} measures 3 mm."])
    )
    said = frame.format(data.draw(st.sampled_from(phrases)))
    extra = CitedSentence(section=SectionName.FINDINGS, text=said, aliases=(ground.facts.facts[0].alias,))
    assert check_sentences((extra, *text), ground)


@settings(max_examples=200, deadline=None)
@given(words=st.text(max_size=300), seed=st.integers(0, 50))
def test_any_text_at_all_is_read_without_an_error(words, seed):
    ground = draw_facts(Random(seed))
    extract_statements(words)
    sentence = CitedSentence(section=SectionName.FINDINGS, text=words, aliases=("F1",))
    assert check_sentences((sentence,), ground)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), seed=st.integers(0, 50))
def test_any_words_of_the_lexicon_in_a_row_are_read_the_same_twice(data, seed):
    phrases = sorted(" ".join(words) for group in default_lexicon().phrases.values() for words, _ in group)
    words = " ".join(data.draw(st.lists(st.sampled_from([*phrases, ",", ";", "12", "."]), max_size=20)))
    ground = draw_facts(Random(seed))
    sentence = CitedSentence(section=SectionName.IMPRESSION, text=words, aliases=("F1", "F2"))
    assert check_sentences((sentence,), ground) == check_sentences((sentence,), ground)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_what_is_extracted_of_a_faithful_text_is_what_the_facts_say(seed):
    ground = draw_facts(Random(seed))
    text = write_answer_sentences(ground, Random(seed + 1))
    findings = [one.text for one in text if one.section is SectionName.FINDINGS]
    stated = {
        (concept, one.presence)
        for words in findings
        for one in extract_statements(words)
        for concept in one.concepts
    }
    facts = {(fact.concept, fact.presence) for fact in ground.facts.facts}
    twins = {"fibrosis", "pulmonary_fibrosis", "brain", "brain_volume", "nodule_mass", "nodule", "mass"}
    assert {pair for pair in stated if pair[0] not in twins} == {
        pair for pair in facts if pair[0] not in twins
    }


def test_a_report_is_checked_in_milliseconds():
    drawn = [(draw_facts(Random(seed)), seed) for seed in range(40)]
    reports = [(write_answer_sentences(ground, Random(seed)), ground) for ground, seed in drawn]
    check_sentences(*reports[0])
    start = time.process_time()
    for text, ground in reports:
        check_sentences(text, ground)
    assert (time.process_time() - start) / len(reports) < MOST_SECONDS


# -- the draft ----------------------------------------------------------------------------------


@st.composite
def findings(draw, number):
    concept = draw(st.sampled_from(sorted(codes._FINDINGS)))
    is_anatomy = codes.code_finding(concept).is_anatomy
    presence = Presence.PRESENT if is_anatomy else draw(st.sampled_from(list(Presence)))
    kind = "outlined" if is_anatomy else draw(st.sampled_from(["outlined", "marked", "label"]))
    finding = Finding(
        finding_id=f"F{number}",
        concept=concept,
        site=_SITES.get(concept, "lung"),
        presence=presence,
        confidence=draw(st.none() | st.floats(0.01, 0.99)),
    )
    if presence is not Presence.PRESENT:
        return finding
    if kind == "marked":
        left, top = draw(st.floats(0, 700)), draw(st.floats(0, 700))
        box = Box(frame=_FRAME, left=left, top=top, right=left + draw(st.floats(20, 300)), bottom=top + 100)
        return replace(finding, box=box)
    side = None if is_anatomy else draw(st.none() | st.sampled_from(list(Laterality)))
    if kind == "label":
        return replace(finding, laterality=side)
    long_axis = draw(st.floats(2, 150))
    sizes = [
        Measurement(quantity=Quantity.VOLUME, value=draw(st.floats(0.02, 1500)), unit="mL"),
        Measurement(quantity=Quantity.LONG_AXIS, value=long_axis, unit="mm"),
        Measurement(quantity=Quantity.PERPENDICULAR_AXIS, value=0.7 * long_axis, unit="mm"),
    ]
    return replace(
        finding, laterality=side, segment_number=1, measurements=tuple(sizes[: 1 if is_anatomy else 3])
    )


@st.composite
def analyses(draw):
    made = []
    for model in range(draw(st.integers(1, 3))):
        number = draw(st.integers(1, 6))
        made.append(
            Analysis(
                model=ModelIdentity(
                    name=f"chest-model-{model}", version="1", weights_sha256="0", task="detection", title="t"
                ),
                study_uid="1.2",
                inputs=(SeriesInput(role="chest", series_uid="1.2.4", frames=(_FRAME,)),),
                findings=tuple(draw(findings(index)) for index in range(1, number + 1)),
            )
        )
    return made


@settings(max_examples=150, deadline=None)
@given(made=analyses())
def test_the_draft_passes_its_own_check(made):
    facts = collect_facts(made, _VIEWS)
    aliases = {fact.fact_id: fact.alias for fact in facts.facts}
    draft = draft_report(made, _VIEWS)
    sentences = [
        CitedSentence(
            section=section.name,
            text=sentence.text,
            aliases=tuple(aliases[one] for one in sentence.finding_ids),
        )
        for section in draft.sections
        if section.name in _WORDED
        for sentence in section.sentences
        if not sentence.is_fixed and sentence.finding_ids
    ]
    assert check_sentences(sentences, Ground(facts=facts, examination="chest radiograph")) == ()
