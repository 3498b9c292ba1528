from __future__ import annotations

import pytest

from inference.report_vocabulary import UNKNOWN, Vocabulary, clean_report, write_sentences


@pytest.mark.parametrize(
    ("text", "cleaning", "cleaned"),
    [
        ("The heart is normal. Lungs are clear.", "iu_xray", "the heart is normal . lungs are clear ."),
        ("1. No effusion. 2. No edema.", "iu_xray", "no effusion . no edema ."),
        ("Clear lungs... (XXXX) well-defined/round", "iu_xray", "clear lungs . xxxx well-definedround ."),
        ("FINDINGS:\n ___ Heart   normal", "mimic_cxr", "findings  heart normal ."),
        ("size; 3, 'as' \"was\" <no> a:b", "iu_xray", "size 3 as was no ab ."),
    ],
)
def test_text_is_cleaned_as_the_published_network_reads_it(text: str, cleaning: str, cleaned: str) -> None:
    assert clean_report(text, cleaning) == cleaned


def test_words_are_numbered_from_one_in_the_order_of_their_characters() -> None:
    reports = ["the heart is large."] * 3 + ["a rare word."]
    vocabulary = Vocabulary.of_reports(reports, threshold=3)
    assert vocabulary.words == (".", UNKNOWN, "heart", "is", "large", "the")
    assert vocabulary.encode("The heart is rare.") == [6, 3, 4, 2, 1]
    assert vocabulary.decode([6, 3, 0, 5]) == "the heart"


def test_sentences_for_people_leave_out_what_the_network_cannot_say() -> None:
    text = "the heart is large . a <unk> is seen . no effusion ."
    assert write_sentences(text) == ("The heart is large.", "No effusion.")
    assert write_sentences("") == ()
    assert write_sentences("cut before its end") == ("Cut before its end.",)
