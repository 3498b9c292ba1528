from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from inference.analysis_files import load_outcome, save_outcome
from inference.findings import Outcome
from inference.networks.r2gen_cmn import R2GenCMN
from inference.packages import ModelPackageError, load_package
from inference.reading import read_study
from inference.rehearsal import example_study, rehearse
from inference.report_writing import WritingOptions, write_texts
from inference.runner import Runner
from inference.training.classification_cards import read_card_template
from inference.training.run_files import write_card, write_weights

WORDS = (".", "<unk>", "effusion", "no")
SIZES = {
    "words": 4, "extractor": "test_efficientnet", "d_model": 16, "d_ff": 16, "heads": 2, "layers": 1,
    "memory_size": 8, "top_k": 4, "positions": 32,
}  # fmt: skip


def write_package(models_dir, *, vocabulary=WORDS):
    """Write a package that says «no effusion .» of everything."""
    torch.manual_seed(0)
    network = R2GenCMN(**SIZES)
    part = network.encoder_decoder
    with torch.no_grad():  # the next word follows from the last one's embedding alone
        for layer in part.model.decoder.layers:
            for weight in (layer.self_attn.linears[3], layer.src_attn.linears[3], layer.feed_forward.w_2):
                weight.weight.zero_()
                weight.bias.zero_()
        part.cmn.linears[3].weight.zero_()
        part.cmn.linears[3].bias.zero_()
        part.model.tgt_embed[1].pe.zero_()
        part.model.tgt_embed[0].lut.weight.copy_(torch.eye(5, 16) * 4)
        part.logit.weight.zero_()
        part.logit.bias.zero_()
        for before, after in ((0, 4), (4, 3), (3, 1), (1, 0)):
            part.logit.weight[after, before] = 9.0
    folder = models_dir / "chest-xray-report" / "0.1.0"
    card = read_card_template("chest-xray-report", "0.1.0")
    card["input"] |= {"matrix": 64}
    write_card(
        folder,
        card
        | {
            "network": {"builtin": "r2gen_cmn", "arguments": SIZES},
            "options": {"vocabulary": list(vocabulary), "longest": 10},
            "weights": {"files": write_weights(network, folder), "dtype": "float16"},
        },
    )
    return load_package(folder)


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
