import pytest

from reporting.language import text_metrics
from reporting.language.text_metrics import (
    NO_SYNONYMS,
    SYNONYMS,
    TextMetricsError,
    bleu,
    label_scores,
    mean_interval,
    meteor,
    meteor_matching,
    rouge_l,
    score_texts,
    tokens,
)

SAME = ("The heart is enlarged. No effusion.", "the heart is enlarged . no effusion .")
OTHER = ("Lungs are clear.", "A nodule of 3.5 mm lies in the left upper lobe.")


def test_tokens_keep_numbers_and_sentence_ends_and_drop_other_marks() -> None:
    assert tokens("A well-defined nodule (3.5 mm), 20 %.") == [
        *("a", "well-defined", "nodule", "3.5", "mm", "20", "%", ".")
    ]


def test_equal_texts_score_one_whatever_their_case_and_spacing() -> None:
    scores = score_texts([SAME, SAME])
    assert [score.mean for score in scores.bleu] == pytest.approx([1.0] * 4)
    assert scores.rouge_l.mean == 1.0
    assert scores.meteor.mean > 0.99  # its penalty for one chunk is never zero
    assert scores.items == 2


def test_disjoint_texts_score_zero() -> None:
    pair = [("lungs clear", "heart enlarged")]
    assert [score.mean for score in bleu(pair)] == [0.0] * 4
    assert rouge_l(pair).mean == 0.0
    assert meteor(pair).mean == 0.0


def test_bleu_is_of_the_corpus_and_punishes_brevity() -> None:
    pairs = [("the heart", "the heart is large"), ("no effusion", "no effusion")]
    # all 4 unigrams agree; 4 words against 6: exp(1 - 6/4)
    assert bleu(pairs)[0].mean == pytest.approx(0.6065, abs=1e-4)


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    assert rouge_l([("a c", "a b c d")]).mean == pytest.approx(2 * 1.0 * 0.5 / 1.5)


def test_meteor_matches_stems_and_says_whether_synonyms_counted() -> None:
    assert meteor([("enlarged hearts", "enlarging heart")]).mean > 0.9
    assert meteor_matching() in {SYNONYMS, NO_SYNONYMS}


def test_meteor_does_without_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_metrics, "_dictionary", lambda: None)
    assert meteor_matching() == NO_SYNONYMS
    assert meteor([SAME]).mean > 0.99


def test_texts_of_one_patient_are_resampled_together() -> None:
    pairs = [SAME] * 10 + [OTHER] * 10
    alone = rouge_l(pairs)
    together = rouge_l(pairs, ["p1"] * 10 + ["p2"] * 10)
    assert together.mean == pytest.approx(alone.mean)
    assert (together.count, alone.count) == (2, 20)
    assert together.high - together.low > alone.high - alone.low


def test_labels_are_scored_pooled_and_by_label() -> None:
    said = [({"a"}, {"a"}), ({"a", "b"}, {"a"}), (set(), {"b"})]
    scores = label_scores(said, ("a", "b", "never"))
    assert scores["micro_precision"].mean == pytest.approx(2 / 3)
    assert scores["micro_recall"].mean == pytest.approx(2 / 3)
    assert scores["macro_f1"].mean == pytest.approx(0.5)


def test_nothing_to_score_is_an_error() -> None:
    for empty in (lambda: bleu([]), lambda: mean_interval([]), lambda: label_scores([], ("a",))):
        with pytest.raises(TextMetricsError, match="no text"):
            empty()
    with pytest.raises(TextMetricsError, match="one group"):
        rouge_l([SAME], ["p1", "p2"])
