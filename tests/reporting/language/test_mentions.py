"""Names found in texts."""

from __future__ import annotations

from reporting.language.mentions import Vocabulary

VOCABULARY = Vocabulary(
    {
        "effusion": ["effusion", "pleural effusion"],
        "pleura": ["pleural"],
        "bleeding": ["intracranial hemorrhage"],
        "nothing": ["the of"],
    }
)


def test_plurals_and_british_spelling_are_found() -> None:
    assert VOCABULARY.find("Effusions, and an intracranial haemorrhage.") == {"effusion": 1, "bleeding": 1}


def test_the_longest_name_wins() -> None:
    assert VOCABULARY.find("A pleural effusion; a pleural line.") == {"effusion": 1, "pleura": 1}


def test_names_without_words_and_texts_without_names_find_nothing() -> None:
    assert VOCABULARY.find("the of") == {}
    assert Vocabulary({}).find("effusion") == {}
