from itertools import chain

import pytest

from reporting import codes
from reporting.checker import LexiconError, build_lexicon, default_lexicon, extract_statements, read_tables
from reporting.checker.faults import FaultKind
from reporting.checker.items import read_items
from reporting.checker.lexicon import _PATH, Part
from reporting.language.phrases import _FORMS


@pytest.mark.parametrize("concept", sorted(codes._FINDINGS))
def test_every_finding_of_the_code_table_has_words(concept):
    finding = codes.code_finding(concept)
    for words in (finding.noun, finding.label):
        items = read_items(words, default_lexicon(), cited=frozenset({concept}))
        (item,) = items
        assert item.part is Part.CONCEPT, words
        assert concept in item.entry.concepts
        assert item.entry.refused is None


@pytest.mark.parametrize("site", sorted(codes._SITES))
def test_every_site_of_the_code_table_has_words(site):
    (item,) = read_items(codes.code_site(site).noun, default_lexicon())
    assert (item.part, item.value) == (Part.SITE, site)
    assert site in default_lexicon().wider_sites[site]


def test_the_lexicon_names_no_finding_that_the_code_table_lacks():
    assert default_lexicon().concepts == set(codes._FINDINGS)


def test_the_plurals_of_the_report_grammar_are_known():
    for form in chain(_FORMS.values()):
        for words in (form.one, form.many, form.bare):
            (statement,) = extract_statements(f"No {words} is seen.")
            assert statement.concept is not None


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("spiculated", FaultKind.EMBELLISHMENT),
        ("large", FaultKind.EMBELLISHMENT),
        ("severe", FaultKind.EMBELLISHMENT),
        ("calcified", FaultKind.EMBELLISHMENT),
        ("cavitating", FaultKind.EMBELLISHMENT),
        ("suspicious", FaultKind.EMBELLISHMENT),
        ("definite", FaultKind.WRONG_CERTAINTY),
        ("pathognomonic", FaultKind.WRONG_CERTAINTY),
        ("unchanged", FaultKind.COMPARISON_WITHOUT_PRIOR),
        ("metastasis", FaultKind.DIAGNOSIS),
        ("glioblastoma", FaultKind.DIAGNOSIS),
        ("normal", FaultKind.OVERCLAIMED_ABSENCE),
        ("biopsy", FaultKind.ADVICE),
        ("lobe", FaultKind.WRONG_SITE),
    ],
)
def test_words_that_say_too_much_are_known_as_such(word, kind):
    (item,) = read_items(word, default_lexicon())
    assert item.entry.refused is kind


def test_a_site_may_add_words():
    tables = read_tables(_PATH)
    tables["concepts"]["nodule"]["one"].append("coin lesion")
    lexicon = build_lexicon(tables)
    (statement,) = extract_statements("No coin lesions.", lexicon)
    assert statement.concept == "nodule"


@pytest.mark.parametrize("text", ["- a list", "concepts: {nodule: 3}", "{", "concepts: {}"])
def test_a_malformed_file_is_refused(tmp_path, text):
    path = tmp_path / "words.yaml"
    path.write_text(text)
    with pytest.raises(LexiconError, match=r"checker\.md"):
        build_lexicon(read_tables(path))
