"""Sentences composed from families of words: the faithful ones pass, and one wrong word makes each fail."""

import re
from dataclasses import replace

import pytest
from checker_cases import read_grounds
from hypothesis import given, settings
from hypothesis import strategies as st

from reporting.checker import check_sentences
from reporting.refine.answer import CitedSentence
from reporting.text import SectionName

SEEN = [
    *(
        "seen",
        "noted",
        "demonstrated",
        "identified",
        "appreciated",
        "detected",
        "visualised",
        "shown",
        "found",
    ),
    *("observed", "recognised", "depicted", "noticed", "revealed", "displayed", "discerned", "perceived"),
]
VISIBLE = [*SEEN, "evident", "apparent", "visible", "present", "discernible", "perceptible"]
PLACES = [
    *("in the right upper zone", "within the right upper zone", "at the right upper zone"),
    *(
        "overlying the right upper zone",
        "in the upper zone of the right lung",
        "on the right, in the upper zone",
    ),
    *(
        "in the right lung, upper zone",
        "projected over the right upper zone",
        "situated in the right upper zone",
    ),
    *(
        "involving the right upper zone",
        "on the right side in the upper zone",
        "in the upper part of the right lung",
    ),
]
DOUBTS = [
    *("A possible {} is {seen} {place}.", "A {} is suspected {place}.", "There may be a {} {place}."),
    *("There appears to be a possible {} {place}.", "Suspicion of a {} {place}.", "A {} is likely {place}."),
    *(
        "Findings suggestive of a {} {place}.",
        "A {} {place} is considered possible.",
        "Perhaps a {} {place}.",
    ),
    *("It is possible that there is a {} {place}.", "The algorithm suspects a {} {place}."),
]
FOUND = [
    *("A {} is {visible} {place}.", "A {} was {visible} {place}.", "A {} can be {seen} {place}."),
    *("A {} has been {seen} {place}.", "There is a {} {place}.", "The algorithm detects a {} {place}."),
    *("The presence of a {} {place} is {visible}.", "There is evidence of a {} {place}."),
]
ABSENT = [
    *("No {} is {visible}.", "No {} can be {seen}.", "No {} could be {seen}.", "No {} has been {seen}."),
    *(
        "A {} could not be {seen}.",
        "A {} was not {visible}.",
        "There is no evidence of a {}.",
        "Negative for {}.",
    ),
    *(
        "No {} is {visible} on either side.",
        "The algorithm did not detect a {}.",
        "No signs of a {} are {visible}.",
    ),
]
OPEN = [
    *("It {could} be {determined} whether {} is present.", "The presence of {} {could} be {determined}."),
    *(
        "The presence or absence of {} {could} be {determined}.",
        "The result for {} is {open}.",
        "{} is {open}.",
    ),
    *("It remains {open} whether there is {}.", "No conclusion about {} could be drawn.", "{}: {open}."),
    *("The algorithm could not determine if {} is present.", "{} can neither be confirmed nor excluded."),
]
WORDS = {
    "seen": SEEN,
    "visible": VISIBLE,
    "could": ["could not", "cannot"],
    "determined": ["determined", "assessed", "decided", "established", "judged"],
    "open": ["undetermined", "indeterminate", "inconclusive", "undecided", "unclear"],
}
EFFUSION = {"place": ["in the left lower zone", "on the left, lower zone", "at the left lower zone"]}


@st.composite
def sentences(draw, frames, noun, **words):
    text = draw(st.sampled_from(frames)).replace("{}", noun)
    for name, choices in {**WORDS, "place": PLACES, **words}.items():
        if f"{{{name}}}" in text:
            text = text.replace(f"{{{name}}}", draw(st.sampled_from(choices)))
    return text[0].upper() + text[1:]


def check(alias, words):
    ground, text = read_grounds()["chest"]
    said = [
        replace(one, text=words) if one.section is SectionName.FINDINGS and one.aliases == (alias,) else one
        for one in text
    ]
    assert CitedSentence(section=SectionName.FINDINGS, text=words, aliases=(alias,)) in said
    return check_sentences(said, ground)


@settings(max_examples=150, deadline=None)
@given(words=sentences(FOUND, "nodule"))
def test_a_finding_may_be_told_in_many_ways_and_only_where_it_is(words):
    assert check("F1", words) == ()
    assert check("F1", words.replace("right", "left"))
    assert check("F1", words.replace("upper", "lower"))
    assert check("F1", words.replace("nodule", "nodules"))
    assert check("F1", re.sub(r"\b[Aa] nodule", "no nodule", words))
    assert check("F3", words.replace("nodule", "mass"))


@settings(max_examples=150, deadline=None)
@given(words=sentences(DOUBTS, "pleural effusion", **EFFUSION))
def test_doubt_may_be_told_in_many_ways_and_only_where_it_is(words):
    assert check("F2", words) == ()
    assert check("F2", words.replace("left", "right"))
    sure = words.replace("effusion", "nodule").replace("pleural ", "").replace("left", "right")
    assert check("F1", sure.replace("lower", "upper"))
    assert check("F4", words.replace("pleural effusion", "pneumothorax"))


@settings(max_examples=150, deadline=None)
@given(words=sentences(ABSENT, "mass"))
def test_absence_may_be_told_in_many_ways_and_only_of_what_is_absent(words):
    assert check("F3", words) == ()
    assert check("F1", words.replace("mass", "nodule"))
    assert check("F6", words.replace("a mass", "mass").replace("mass", "consolidation"))
    assert check("F3", words.replace("mass", "large mass"))
    assert check("F3", f"{words[:-1]} on the right.")


@settings(max_examples=150, deadline=None)
@given(words=sentences(OPEN, "consolidation"))
def test_what_is_open_may_be_told_in_many_ways_and_only_of_what_is_open(words):
    assert check("F6", words) == ()
    for alias, noun in (("F1", "nodule"), ("F2", "effusion"), ("F3", "mass"), ("F4", "pneumothorax")):
        assert check(alias, re.sub("consolidation", noun, words, flags=re.IGNORECASE))
    closed = re.sub("could not|cannot|can neither", "could", words)
    assert closed == words or check("F6", closed)


@pytest.mark.parametrize("word", ["{could}", "{nothing}"])
def test_a_brace_is_no_word(word):
    assert check("F1", f"A nodule is seen in the right upper zone, {word}.")
