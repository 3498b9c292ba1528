from collections import Counter

import pytest
from checker_cases import read_cases, read_grounds

from reporting.checker import FaultKind, check_sentences

FILES = ("unfaithful", "faithful", "held_back", "second_look", "third_look", "fourth_look")
CASES = [case for file in FILES for case in read_cases(file)]
UNFAITHFUL = [case for case in CASES if not case.is_faithful]
FAITHFUL = [case for case in CASES if case.is_faithful]
#: Faithful, and refused all the same: what docs/checker.md owns up to.
REFUSED_ALL_THE_SAME = {
    "The heart is the site of cardiac enlargement.",
    "A single nodule is present, lying in the right upper zone.",
    "FLAIR signal abnormalities on both sides of the brain, the left one only possible.",
    "No focal nodule or mass is visible in either lung.",
    "One nodule in each lung.",
    "Possible bibasal atelectasis in the lower zones.",
    "Infiltrates are present.",
    "The measured volume of the brain is 1.29 L.",
}


@pytest.mark.parametrize("name", sorted(read_grounds()))
def test_the_faithful_text_of_a_study_passes(name):
    ground, text = read_grounds()[name]
    assert check_sentences(text, ground) == ()


@pytest.mark.parametrize("case", UNFAITHFUL, ids=lambda case: case.name)
def test_an_unfaithful_text_is_refused(case):
    assert check_sentences(case.sentences, case.ground)


@pytest.mark.parametrize("case", FAITHFUL, ids=lambda case: case.name)
def test_a_faithful_text_passes(case):
    is_known = any(one.text in REFUSED_ALL_THE_SAME for one in case.sentences)
    assert bool(check_sentences(case.sentences, case.ground)) is is_known


def test_the_bench_is_as_large_as_the_documentation_says():
    counts = Counter(case.is_faithful for case in CASES)
    assert counts[False] >= 500
    assert counts[True] >= 250


def test_comparisons_are_refused_as_comparisons():
    kinds = [
        {fault.kind for fault in check_sentences(case.sentences, case.ground)}
        for case in UNFAITHFUL
        if case.group == "comparison"
    ]
    assert all(FaultKind.COMPARISON_WITHOUT_PRIOR in found for found in kinds)


@pytest.mark.parametrize(
    ("group", "kinds"),
    [
        ("wrong_side", {FaultKind.WRONG_SIDE, FaultKind.WRONG_SITE, FaultKind.WRONG_COUNT}),
        ("characters", {FaultKind.CHARACTER, FaultKind.UNKNOWN_WORD, FaultKind.MARKUP}),
        ("dropped", {FaultKind.MISSING_FACT, FaultKind.MISSING_DETAIL, FaultKind.UNSTATED_CITATION}),
        (
            "advice",
            {FaultKind.ADVICE, FaultKind.UNKNOWN_CITATION, FaultKind.NO_CITATION, FaultKind.UNKNOWN_WORD},
        ),
        (
            "embellishment",
            {
                FaultKind.EMBELLISHMENT,
                FaultKind.OVERCLAIMED_ABSENCE,
                FaultKind.UNKNOWN_WORD,
                FaultKind.DIAGNOSIS,
            },
        ),
        ("diagnosis", {FaultKind.DIAGNOSIS, FaultKind.UNKNOWN_WORD}),
    ],
)
def test_what_is_wrong_is_named(group, kinds):
    for case in UNFAITHFUL:
        if case.group == group:
            assert kinds & {fault.kind for fault in check_sentences(case.sentences, case.ground)}, case.line


def test_no_fault_quotes_a_word_outside_the_lexicon():
    for case in UNFAITHFUL:
        for fault in check_sentences(case.sentences, case.ground):
            assert not {"jane", "example", "123456", "a1234"} & set(fault.detail.lower().split())
