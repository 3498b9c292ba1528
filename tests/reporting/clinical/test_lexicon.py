from __future__ import annotations

import re
from collections import Counter

from reporting.clinical import load_lexicon

LEXICON = load_lexicon()


def test_no_phrase_stands_for_two_problems():
    phrases = Counter(
        phrase
        for entry in LEXICON.entries.values()
        for phrase in (*entry.spellings, *entry.exact, *entry.absent)
    )
    assert [phrase for phrase, times in phrases.items() if times > 1] == []


def test_no_code_stands_for_two_problems():
    codes = Counter(entry.snomed for entry in LEXICON.entries.values() if entry.snomed)
    assert max(codes.values()) == 1
    assert all(re.fullmatch(r"\d{6,18}", code) for code in codes)


def test_what_leaves_for_a_problem_is_plain_words():
    for entry in LEXICON.entries.values():
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9 -]*", entry.noun), entry.key
        assert re.fullmatch(r"[a-z_]+", entry.key)


def test_codes_and_unknown_concepts_are_looked_up():
    assert LEXICON.find_code("233604007").key == "pneumonia"
    assert LEXICON.find_code("") is None
    assert LEXICON.noun("nobody") is None


def test_codes_that_the_dicom_standard_lists_mean_what_they_stand_for():
    from pydicom.sr._concepts_dict import concepts

    meanings: dict[str, str] = {}
    for listed in concepts["SCT"].values():
        for code, (meaning, *_) in listed.items():
            meanings[code] = f"{meanings.get(code, '')} {meaning}".lower()
    checked = 0
    for entry in LEXICON.entries.values():
        meaning = meanings.get(entry.snomed)
        if meaning is None:
            continue
        checked += 1
        words = {word[:4] for phrase in entry.spellings for word in re.findall(r"[a-z]+", phrase)}
        assert words & {word[:4] for word in re.findall(r"[a-z]+", meaning)}, (entry.key, meaning)
    assert checked >= 40
