"""Adapter: fine-tunes a language model to word reports: LoRA on the base model's frozen weights.

The defaults are the seed system's (rank 8, alpha 32, dropout 0.1, rate 2e-5). What a recipe of
``recipes/*.yaml`` says stands before them, and ``--set`` before that. The run folder holds
``config.json``, ``sources.json`` (what it learned from, under which licence), ``history.jsonl``,
``curves.png``, ``checkpoint.pt``, ``adapter/`` (PEFT, best on the validation pairs) and ``summary.json``.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from dicom_node.errors import PermanentError
from inference.training.devices import training_device
from inference.training.run_files import override, write_json
from reporting.language.base_models import EMBEDDED, load_model, load_tokenizer
from reporting.language.examples import Example, encode_pairs
from reporting.language.pairs import TEXT_SOURCES, Pair, Split, draw_pairs, read_pairs, read_texts
from reporting.language.tuning import Schedule, tune

RECIPES: Final = Path(__file__).with_name("recipes")
ADAPTER: Final = "adapter"
SUMMARY: Final = "summary.json"
_SAMPLE_TOKENS: Final = 256

Config = TypeVar("Config")


class RecipeError(PermanentError):
    """A recipe cannot be used; the message says which field or file."""


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """What a language model learns from.

    Attributes
    ----------
    drawn : int
        Pairs of the report grammar.
    validation : int
        Drawn pairs that choose the best state.
    kinds : tuple of str
        Kinds of study; all if empty.
    most_facts, most_tokens : int
        Longer pairs are left out.
    files : tuple of str
        A site's own pairs, JSONL.
    texts : tuple of str
        Licensed text sets (`pairs.TEXT_SOURCES`), read from ``data``.
    data : str
        The data folder.
    """

    drawn: int = 2000
    validation: int = 24
    kinds: tuple[str, ...] = ()
    most_facts: int = 40
    most_tokens: int = 768
    files: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    data: str = ""
    pairs_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class LoraConfig(PairsConfig, Schedule):
    """A LoRA recipe; `PairsConfig` and `Schedule` describe the other fields.

    Attributes
    ----------
    base : str
        ``embedded``, or the folder of a hub model.
    rank, alpha, dropout : int, int, float
        Of the update: alpha / rank times B A.
    target_modules : tuple of str
        Names of the linear layers that get an update; all of them if empty.
    start : str
        Folder of an adapter to go on from, as PEFT saved it, or as one ships; its rank and layers stay.
    has_samples : bool
        Whether an answer is shown at each validation, which takes seconds.
    """

    base: str = EMBEDDED
    rank: int = 8
    alpha: int = 32
    dropout: float = 0.1
    target_modules: tuple[str, ...] = ()
    start: str = ""
    has_samples: bool = True


def read_recipe(name: str, kind: type[Config], overrides: Mapping[str, str] | None = None) -> Config:
    """Return a recipe: the defaults, then its YAML file, then single settings.

    Parameters
    ----------
    name : str
        Name of a file in ``recipes/``, or path of a YAML file; empty is the defaults alone.
    kind : type
        Dataclass of the recipe.

    Raises
    ------
    RecipeError
        If there is no such recipe, or a field of it is unknown or of the wrong type.
    """
    values: Any = {}
    if name:
        path = RECIPES / f"{name}.yaml"
        path = path if path.is_file() else Path(name)
        if not path.is_file():
            raise RecipeError(f"There is no recipe {name!r}: use a YAML file or {', '.join(list_recipes())}.")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            unknown = set(values) - {field.name for field in fields(kind)}  # type: ignore[arg-type]
            if unknown:
                raise RecipeError(f"The recipe {name} has a field {min(unknown)!r} that none has.")
            values = asdict(TypeAdapter(kind).validate_python(values))  # type: ignore[call-overload]
        except (yaml.YAMLError, ValidationError, TypeError, AttributeError) as exc:
            raise RecipeError(
                f"The recipe {name} is not valid: its fields must fit {kind.__name__}."
            ) from exc
    return override(kind(**values), overrides or {})


def list_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that ship."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.yaml")))


def train_lora(config: LoraConfig, out: Path, *, resume: bool = False) -> Path:
    """Fine-tune and return the adapter's folder.

    Raises
    ------
    BaseModelError, PairsError
        If the model or the pairs cannot be read.
    RecipeError
        If the model has no layer of the names given, the adapter to go on from is another model's, or no
        pair is short enough.
    """
    tokenizer, model = load_tokenizer(config.base), load_model(config.base)
    training, validation = encode_sets(config, tokenizer, out)
    write_json(out / "config.json", config)
    model = _add_adapter(model, config)
    sample = draw_pairs(Split.VALIDATION, 1, seed=config.pairs_seed + 1, kinds=("chest_boxes",))[0]
    result = tune(
        model,
        training,
        validation,
        schedule_of(config),
        out,
        pad=int(tokenizer.pad_token_id),
        device=training_device(),
        resume=resume,
        sample=(lambda: answer(model, tokenizer, sample, _SAMPLE_TOKENS)) if config.has_samples else None,
        keep=lambda: _keep(model, out / ADAPTER),
    )
    write_json(out / SUMMARY, dict(result))
    return out / ADAPTER


def _add_adapter(model: Any, config: LoraConfig) -> Any:
    """Return the model with an update to learn: a new one, or that of an adapter."""
    from peft import LoraConfig as PeftConfig
    from peft import PeftModel, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if config.start:
            try:
                return PeftModel.from_pretrained(model, config.start, is_trainable=True)
            except (OSError, ValueError, RuntimeError) as exc:
                raise RecipeError(
                    "The adapter to go on from does not fit the base model: check start."
                ) from exc
        asked = PeftConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=list(config.target_modules) or "all-linear",
            task_type="CAUSAL_LM",
        )
        try:
            return get_peft_model(model, asked)
        except ValueError as exc:
            raise RecipeError(f"The base model has no layers {', '.join(config.target_modules)}.") from exc


def encode_sets(config: PairsConfig, tokenizer: Any, out: Path) -> tuple[list[Example], list[Example]]:
    """Return the training and the validation pairs as tokens; say in the run folder where they come from.

    Raises
    ------
    PairsError
        If pairs cannot be read.
    RecipeError
        If none is short enough.
    """
    pairs: list[Pair] = list(
        draw_pairs(
            Split.TRAINING,
            config.drawn,
            seed=config.pairs_seed,
            kinds=config.kinds,
            most_facts=config.most_facts,
        )
    )
    for file in config.files:
        pairs += read_pairs(Path(file))
    for name in config.texts:
        pairs += read_texts(name, Path(config.data))
    drawn = draw_pairs(Split.VALIDATION, config.validation, seed=config.pairs_seed, kinds=config.kinds)
    training = encode_pairs(pairs, tokenizer, config.most_tokens)
    validation = encode_pairs(drawn, tokenizer, config.most_tokens)
    if not training or not validation:
        raise RecipeError("No pair is as short as most_tokens allows: raise it, or draw more pairs.")
    write_json(out / "sources.json", _describe_sources(config, pairs, len(training)))
    return training, validation


def schedule_of(config: Schedule) -> Schedule:
    """Return the schedule alone of a recipe."""
    return Schedule(**{field.name: getattr(config, field.name) for field in fields(Schedule)})


def answer(model: Any, tokenizer: Any, pair: Pair, most_tokens: int) -> str:
    """Return what a model in training answers to a prompt, word by likeliest word."""
    import torch

    from reporting.language.chat import render_chat

    text = render_chat(tokenizer, pair.system, pair.user)
    prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)
    model.eval()
    with torch.inference_mode(), torch.autocast(model.device.type, dtype=torch.bfloat16):
        output = model.generate(
            **prompt, max_new_tokens=most_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    return str(tokenizer.decode(output[0, prompt.input_ids.shape[1] :], skip_special_tokens=True))


def _describe_sources(config: PairsConfig, pairs: Sequence[Pair], used: int) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for pair in pairs:
        counts[pair.source] = counts.get(pair.source, 0) + 1
    licences = {name: TEXT_SOURCES[name].licence for name in config.texts}
    return {
        "pairs": counts,
        "short_enough": used,
        "licences": {"grammar": "Apache-2.0"} | licences,
        "may_be_given_on": all(TEXT_SOURCES[name].is_shippable for name in config.texts) and not config.files,
    }


def _keep(model: Any, folder: Path) -> None:
    """Write the adapter as it is."""
    partial = folder.with_suffix(".part")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks the hub about the base model, which has no name there
        model.save_pretrained(partial, save_embedding_layers=False)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
