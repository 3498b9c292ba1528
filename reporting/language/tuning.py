"""Adapter: the loop in which a language model is trained: batches, loss, checkpoints, curves.

LoRA and distillation differ in their loss and in what they train; the loop is this one. A run stops after
its steps or its minutes, whichever come first, and the learning rate follows the share that is done, so that
a run on a busy machine ends as gently as on a quiet one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

import torch
from rich.console import Console
from torch import nn

from inference.training.run_files import (
    CHECKPOINT,
    append_history,
    load_checkpoint,
    plot_curves,
    save_checkpoint,
)
from inference.training.schedule import one_cycle
from reporting.language.examples import Batch, Example, collate, plan_batches

_SECONDS_A_MINUTE: Final = 60.0

Loss: TypeAlias = Callable[[Any, Batch, float], tuple[torch.Tensor, Mapping[str, float]]]
"""The model, a batch and the share of the run that is done -> the loss, and its parts by name."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast a run learns.

    Attributes
    ----------
    epochs : float
        Passes over the pairs.
    most_steps : int
        Steps of the optimiser at most; 0 is without limit.
    minutes : float
        Longest time of training and validation, minutes; 0 is without limit.
    batch_tokens : int
        Most tokens of a batch, filling included.
    accumulate : int
        Batches to one step of the optimiser.
    learning_rate : float
        At its peak.
    warm_up : float
        Share of the run in which the rate rises.
    clip : float
        Largest norm of the gradient.
    evaluations : int
        How often the validation pairs are scored.
    """

    epochs: float = 1.0
    most_steps: int = 0
    minutes: float = 0.0
    batch_tokens: int = 2048
    accumulate: int = 1
    learning_rate: float = 2e-5
    warm_up: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    evaluations: int = 8
    seed: int = 20261122


class _Trained(nn.Module):
    """The trained parameters of a model alone, for a checkpoint."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, value in model.named_parameters():
            if value.requires_grad:
                self.register_parameter(name.replace(".", "/"), value)


@dataclass(slots=True)
class _State:
    """Where a run is."""

    step: int = 0
    seconds: float = 0.0
    best: float = float("inf")


def answer_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits and the targets of the answers' tokens: (T, vocabulary) float32 and (T,) int64.

    The prompt's tokens get no logits: with a large vocabulary those cost more than a few layers.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.model
    hidden = decoder(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False).last_hidden_state
    learned = batch.targets >= 0
    head = model.get_output_embeddings()
    return head(hidden[learned]).float(), batch.targets[learned]


def cross_entropy(model: Any, batch: Batch, progress: float) -> tuple[torch.Tensor, Mapping[str, float]]:
    """Return the mean loss of the answers' tokens."""
    del progress
    logits, targets = answer_logits(model, batch)
    loss = nn.functional.cross_entropy(logits, targets)
    return loss, {"loss": loss.item()}


def tune(
    model: Any,
    training: Sequence[Example],
    validation: Sequence[Example],
    schedule: Schedule,
    out: Path,
    *,
    pad: int,
    loss: Loss = cross_entropy,
    device: torch.device,
    resume: bool = False,
    sample: Callable[[], str] | None = None,
    keep: Callable[[], None] | None = None,
) -> Mapping[str, float]:
    """Train the parameters of a model that require gradients.

    Parameters
    ----------
    out : Path
        Run folder: ``history.jsonl``, ``curves.png``, ``checkpoint.pt``; with ``resume`` it continues from
        there, with the batches that an uninterrupted run would have had.
    pad : int
        Token that fills batches up.
    sample : callable or None
        Returns an answer of the model as it is, shown at each validation.
    keep : callable or None
        Called whenever the validation loss is the lowest so far.

    Returns
    -------
    mapping
        ``steps``, ``seconds``, ``best`` validation loss.
    """
    console = Console(stderr=True)
    model.to(device)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=schedule.weight_decay)
    parts: dict[str, nn.Module | torch.optim.Optimizer] = {"model": _Trained(model), "optimizer": optimizer}
    state = _State()
    if resume:
        values = load_checkpoint(out / CHECKPOINT, parts, device)
        state = _State(step=int(values["step"]), seconds=values["seconds"], best=values["best"])
    plan = _plan(training, schedule)
    steps = max(1, len(plan) // schedule.accumulate)
    steps = min(steps, schedule.most_steps or steps)
    every = max(1, steps // schedule.evaluations)
    next_evaluation = _share(state, steps, schedule) + 1 / schedule.evaluations
    started = time.monotonic() - state.seconds
    recent: list[Mapping[str, float]] = []
    while state.step < steps:
        progress = _share(state, steps, schedule)
        if progress >= 1.0:
            break
        torch.manual_seed(schedule.seed + state.step)
        recent.append(
            _step(
                model=model,
                trained=trained,
                optimizer=optimizer,
                training=training,
                plan=plan,
                step=state.step,
                progress=progress,
                schedule=schedule,
                loss=loss,
                pad=pad,
            )
        )
        state.step += 1
        state.seconds = time.monotonic() - started
        progress = _share(state, steps, schedule)
        is_due = progress >= next_evaluation if schedule.minutes else state.step % every == 0
        if state.step % 10 == 0:
            console.print(
                f"step {state.step}/{steps}  loss {recent[-1]['loss']:.3f}  {state.seconds:.0f} s",
                highlight=False,
            )
        if is_due or state.step == steps or progress >= 1.0:
            next_evaluation = progress + 1 / schedule.evaluations
            lost = validation_loss(model, validation, schedule.batch_tokens, pad)
            _record(out, state, recent, lost, console)
            recent = []
            if lost < state.best:
                state.best = lost
                if keep is not None:
                    keep()
            if sample is not None:
                console.print(sample(), highlight=False, markup=False)
            state.seconds = time.monotonic() - started
            save_checkpoint(
                out / CHECKPOINT,
                parts,
                {"step": state.step, "seconds": state.seconds, "best": state.best},
            )
    return {"steps": state.step, "seconds": round(state.seconds, 1), "best": state.best}


@torch.no_grad()
def validation_loss(model: Any, examples: Sequence[Example], batch_tokens: int, pad: int) -> float:
    """Return the mean loss over all answer tokens of some examples."""
    model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for indices in plan_batches(examples, batch_tokens, Random(0)):  # noqa: S311 - not a secret
        batch = _move(collate([examples[index] for index in indices], pad), device)
        with _autocast(device):
            logits, targets = answer_logits(model, batch)
        total += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
        count += len(targets)
    return total / max(1, count)


def _step(
    *,
    model: Any,
    trained: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    training: Sequence[Example],
    plan: Sequence[Sequence[int]],
    step: int,
    progress: float,
    schedule: Schedule,
    loss: Loss,
    pad: int,
) -> Mapping[str, float]:
    """Take one step of the optimiser."""
    model.train()
    device = trained[0].device
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate * one_cycle(progress, schedule.warm_up)
    said: Mapping[str, float] = {}
    first = step * schedule.accumulate
    for indices in plan[first : first + schedule.accumulate]:
        batch = _move(collate([training[index] for index in indices], pad), device)
        with _autocast(device):
            value, said = loss(model, batch, progress)
        (value / schedule.accumulate).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(trained, schedule.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return said


def _plan(training: Sequence[Example], schedule: Schedule) -> list[list[int]]:
    """Return the batches of the whole run."""
    random = Random(schedule.seed)  # noqa: S311 - not a secret
    plan: list[list[int]] = []
    epochs = schedule.epochs
    while epochs > 0:
        batches = plan_batches(training, schedule.batch_tokens, random)
        plan += batches if epochs >= 1 else batches[: max(1, int(len(batches) * epochs))]
        epochs -= 1
    return plan


def _share(state: _State, steps: int, schedule: Schedule) -> float:
    """Return the share of the run that is done: of its steps, or of its minutes if they end sooner."""
    share = state.step / steps
    if schedule.minutes:
        share = max(share, state.seconds / (schedule.minutes * _SECONDS_A_MINUTE))
    return share


def _record(
    out: Path, state: _State, recent: Sequence[Mapping[str, float]], lost: float, console: Console
) -> None:
    means = {key: sum(one[key] for one in recent) / len(recent) for key in recent[0]} if recent else {}
    record = {"epoch": state.step, **means, "validation_loss": lost, "seconds": round(state.seconds, 1)}
    append_history(out, record)
    plot_curves(out, losses=[*means, "validation_loss"], scores=())
    console.print(f"step {state.step}: validation loss {lost:.4f}", highlight=False)


def _move(batch: Batch, device: torch.device) -> Batch:
    return Batch(tokens=batch.tokens.to(device), mask=batch.mask.to(device), targets=batch.targets.to(device))


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16)
