import json
from dataclasses import replace

import pytest
import torch
from tiny_language_models import write_llama, write_opt

from inference.training.run_files import OverrideError, read_history
from reporting.language.adapters import load_adapter_card
from reporting.language.base_models import BaseModelError, load_model, load_tokenizer
from reporting.language.distillation import (
    DistillationError,
    DistillConfig,
    distil,
    prune_layers,
    teach,
    weigh_teacher,
)
from reporting.language.evaluation import ANSWERS, Engine, EvaluateConfig, EvaluationError, evaluate
from reporting.language.examples import collate, encode_pairs, plan_batches
from reporting.language.lora import (
    LoraConfig,
    RecipeError,
    list_recipes,
    read_recipe,
    train_lora,
)
from reporting.language.pairs import Split, draw_pairs
from reporting.language.tuning import answer_logits, validation_loss

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
LONG = 4096
SMALL = {
    "drawn": 8,
    "validation": 3,
    "kinds": ("brain_lesions",),
    "most_tokens": LONG,
    "batch_tokens": 1024,
    "evaluations": 2,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return str(write_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def lora_run(llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("lora")
    adapter = train_lora(LoraConfig(base=llama, has_samples=False, **SMALL), out)
    return adapter, out


def test_lora_leaves_an_adapter_a_history_and_what_it_learned_from(lora_run):
    adapter, out = lora_run
    assert (adapter / "adapter_model.safetensors").is_file()
    assert load_adapter_card(adapter) is None
    history = read_history(out)
    assert history[-1]["validation_loss"] < history[0]["loss"]
    assert (out / "curves.png").is_file()
    sources = json.loads((out / "sources.json").read_text())
    assert sources == {
        "pairs": {"grammar": 8},
        "short_enough": 8,
        "licences": {"grammar": "Apache-2.0"},
        "may_be_given_on": True,
    }


def test_lora_updates_every_linear_layer_and_nothing_else(lora_run):
    from safetensors.torch import load_file

    adapter, _ = lora_run
    names = load_file(adapter / "adapter_model.safetensors")
    assert len(names) == 2 * 7 * 2  # two factors, seven linear layers, two blocks
    assert not any("embed" in name or "lm_head" in name for name in names)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(llama, tmp_path):
    config = LoraConfig(base=llama, has_samples=False, dropout=0.1, **SMALL)
    whole = train_lora(config, _made(tmp_path / "whole"))
    parted = _made(tmp_path / "parted")
    # The first half of the plan, with the rate of the whole: stopped as Ctrl-C would.
    with pytest.raises(KeyboardInterrupt):
        _train_until(config, parted, checkpoints=1)
    resumed = train_lora(config, parted, resume=True)
    first, second = (_weights(folder) for folder in (whole, resumed))
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_opt_is_fine_tuned_by_its_recipe(tmp_path):
    base = write_opt(_made(tmp_path / "opt"))
    recipe = read_recipe("opt-1.3b", LoraConfig, {"base": str(base), "drawn": "4", "validation": "2"})
    config = replace(recipe, kinds=("brain_volumes",), has_samples=False, most_tokens=LONG, epochs=1)
    adapter = train_lora(config, _made(tmp_path / "run"))
    assert any("fc1" in name for name in _weights(adapter))


def test_layers_that_a_model_lacks_are_refused(llama, tmp_path):
    config = LoraConfig(base=llama, target_modules=("c_attn",), **SMALL)
    with pytest.raises(RecipeError, match="c_attn"):
        train_lora(config, _made(tmp_path / "run"))


def test_a_run_goes_on_from_an_adapter(llama, lora_run, tmp_path):
    adapter, out = lora_run
    config = LoraConfig(base=llama, has_samples=False, start=str(adapter), most_steps=1, **SMALL)
    train_lora(config, _made(tmp_path / "further"))
    begun = read_history(tmp_path / "further")[0]["loss"]
    assert begun < read_history(out)[0]["loss"]
    with pytest.raises(RecipeError, match="start"):
        train_lora(replace(config, start=str(tmp_path)), _made(tmp_path / "lost"))


def test_the_loss_sees_the_answer_alone(llama):
    tokenizer, model = load_tokenizer(llama), load_model(llama, dtype="float32")
    pairs = draw_pairs(Split.TRAINING, 2, kinds=("brain_volumes",))
    examples = encode_pairs(pairs, tokenizer, LONG)
    batch = collate(examples, tokenizer.pad_token_id)
    learned = batch.targets[0][batch.targets[0] >= 0]
    assert tokenizer.decode(learned) == pairs[0].answer + "<|im_end|>"
    logits, targets = answer_logits(model, batch)
    assert len(logits) == len(targets) == sum(one.answer_length for one in examples)
    alone = [validation_loss(model, [one], 4096, tokenizer.pad_token_id) for one in examples]
    both = validation_loss(model, examples, 1 << 20, tokenizer.pad_token_id)
    weighed = sum(a * e.answer_length for a, e in zip(alone, examples, strict=True))
    assert both == pytest.approx(weighed / sum(e.answer_length for e in examples), rel=0.02)


def test_batches_hold_every_pair_once_and_no_more_tokens_than_allowed(llama):
    from random import Random

    examples = encode_pairs(draw_pairs(Split.TRAINING, 60), load_tokenizer(llama), LONG)
    batches = plan_batches(examples, 6000, Random(1))
    assert sorted(index for batch in batches for index in batch) == list(range(60))
    for batch in batches:
        longest = max(len(examples[index].tokens) for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= 6000


def test_a_pruned_student_keeps_first_and_last_layer_and_generates(tmp_path):
    model = load_model(str(write_llama(_made(tmp_path / "llama"), layers=5)), dtype="float32")
    student = prune_layers(model, 2)
    assert student.config.num_hidden_layers == len(student.model.layers) == 2
    assert torch.equal(student.model.layers[1].mlp.up_proj.weight, model.model.layers[4].mlp.up_proj.weight)
    assert len(model.model.layers) == 5
    output = student.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, pad_token_id=1)
    assert output.shape[1] <= 7
    with pytest.raises(DistillationError, match="keep_every"):
        prune_layers(model, 1)


def test_distillation_lowers_the_loss_and_the_teacher_stays_as_it_is(llama, lora_run, tmp_path):
    adapter, _ = lora_run
    before = _weights(adapter)
    config = DistillConfig(
        teacher=llama, teacher_adapter=str(adapter), sft_share=0.2, ramp_share=0.2, **SMALL
    )
    student = distil(config, _made(tmp_path / "run"))
    history = read_history(tmp_path / "run")
    assert history[-1]["divergence"] >= 0.0
    assert history[-1]["validation_loss"] < history[0]["loss"]
    assert load_model(str(student)).config.num_hidden_layers == 1
    assert all(torch.equal(before[name], value) for name, value in _weights(adapter).items())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["parameters"]["student"] < summary["parameters"]["teacher"]


def test_a_student_of_another_vocabulary_is_refused(llama, tmp_path):
    other = write_llama(_made(tmp_path / "other"), words=710)
    config = DistillConfig(teacher=llama, student=str(other), **SMALL)
    with pytest.raises(DistillationError, match="700 and 710 words"):
        distil(config, _made(tmp_path / "run"))


def test_the_teacher_comes_in_after_the_answers_and_grows():
    config = DistillConfig(kl_weight=0.3, sft_share=0.3, ramp_share=0.4)
    weights = [round(weigh_teacher(share, config), 3) for share in (0.0, 0.3, 0.5, 0.7, 1.0)]
    assert weights == [0.0, 0.0, 0.15, 0.3, 0.3]
    assert weigh_teacher(0.5, replace(config, ramp_share=0.0)) == 0.3


def test_a_student_that_is_its_teacher_diverges_by_nothing(llama):
    tokenizer, model = load_tokenizer(llama), load_model(llama, dtype="float32")
    examples = encode_pairs(draw_pairs(Split.TRAINING, 1, kinds=("brain_volumes",)), tokenizer, LONG)
    batch = collate(examples, tokenizer.pad_token_id)
    _, said = teach(model, DistillConfig(sft_share=0.0, ramp_share=0.0))(model, batch, 1.0)
    assert said["divergence"] == pytest.approx(0.0, abs=1e-5)
    assert said["loss"] == pytest.approx(0.7 * said["cross_entropy"], rel=1e-4)


def test_evaluation_scores_answers_and_perplexity(llama, lora_run, tmp_path):
    adapter, _ = lora_run
    config = EvaluateConfig(
        base=llama,
        adapter=str(adapter),
        engine=Engine.TRANSFORMERS,
        is_constrained=False,
        reports=3,
        kinds=("brain_volumes",),
        most_tokens=8,
        batch=2,
    )
    figures = evaluate(config, tmp_path)
    assert figures["parsed"]["mean"] == figures["faithful_reports"]["mean"] == 0.0
    assert figures["perplexity"]["mean"] > 1.0
    assert len((tmp_path / ANSWERS).read_text().splitlines()) == 3
    with pytest.raises(EvaluationError, match="is_constrained"):
        evaluate(replace(config, is_constrained=True), tmp_path)


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_that_ships_is_valid(name):
    read_recipe(name, DistillConfig if name.startswith("distil") else LoraConfig)


def test_the_defaults_are_those_of_the_seed():
    config = read_recipe("", LoraConfig)
    assert (config.rank, config.alpha, config.dropout, config.learning_rate) == (8, 32, 0.1, 2e-5)


def test_recipes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="no recipe"):
        read_recipe("unknown", LoraConfig)
    path = tmp_path / "own.yaml"
    path.write_text("ranks: 4\n")
    with pytest.raises(RecipeError, match="ranks"):
        read_recipe(str(path), LoraConfig)
    path.write_text("rank: many\n")
    with pytest.raises(RecipeError, match="not valid"):
        read_recipe(str(path), LoraConfig)
    with pytest.raises(OverrideError):
        read_recipe("", LoraConfig, {"rank": "many"})


def test_a_base_that_is_no_folder_is_refused_with_what_to_give():
    with pytest.raises(BaseModelError, match="embedded"):
        load_model("facebook/opt-1.3b")


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _weights(adapter):
    from safetensors.torch import load_file

    return load_file(adapter / "adapter_model.safetensors")


def _train_until(config, out, *, checkpoints):
    """Train and be interrupted right after a checkpoint."""
    from reporting.language import tuning

    save, count = tuning.save_checkpoint, 0

    def save_and_stop(*arguments):
        nonlocal count
        save(*arguments)
        count += 1
        if count == checkpoints:
            raise KeyboardInterrupt

    tuning.save_checkpoint = save_and_stop
    try:
        train_lora(config, out)
    finally:
        tuning.save_checkpoint = save
