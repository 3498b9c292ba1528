from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_packages import WORDS, write_report_package

from inference.analysis_files import load_outcome, save_outcome
from inference.findings import Outcome
from inference.packages import ModelPackageError, load_package
from inference.reading import read_study
from inference.rehearsal import example_study, rehearse
from inference.report_writing import WritingOptions, write_texts
from inference.runner import Runner


def write_package(models_dir, **changes):
    """Write a package that says «no effusion .» of everything."""
    return load_package(write_report_package(models_dir, **changes))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_package(tmp_path_factory.mktemp("models"))


def test_a_study_gets_crude_sentences_and_no_finding(package):
    outcome = read_study(package, example_study(package), Runner("cpu"), "2.25.1")
    assert outcome.crude_report == ("No effusion.",)
    assert outcome.analysis.findings == ()
    assert outcome.analysis.inputs[0].role == "film"
    assert rehearse(package, Runner("cpu")).crude_report == ("No effusion.",)


def test_nothing_is_worded_of_a_lateral_view(package):
    (film, *_) = next(iter(example_study(package).values()))
    outcome = read_study(package, {"film": (replace(film, view="LL"),)}, Runner("cpu"), "2.25.1")
    assert outcome.analysis.is_refused
    assert outcome.crude_report == ()


def test_the_crude_report_is_kept_with_the_analysis(package, tmp_path):
    outcome = read_study(package, example_study(package), Runner("cpu"), "2.25.1")
    assert load_outcome(save_outcome(tmp_path, outcome)) == outcome
    bare = Outcome(analysis=outcome.analysis)
    assert load_outcome(save_outcome(tmp_path, bare)).crude_report == ()


def test_a_card_whose_words_are_not_the_networks_is_refused(tmp_path):
    package = write_package(tmp_path, vocabulary=(*WORDS, "more"))
    with pytest.raises(ModelPackageError, match="4 words"):
        read_study(package, example_study(package), Runner("cpu"), "2.25.1")


def test_texts_of_several_images_are_written_at_once(package):
    options = WritingOptions.model_validate(package.card.options)
    assert write_texts(package.build(), torch.zeros(3, 1, 64, 64), options) == ["no effusion ."] * 3
