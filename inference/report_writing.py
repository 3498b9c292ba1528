"""Pure. One report-writing task: a frontal radiograph in, crude sentences out, and never a finding.

What a network words from pixels is not verified by anything. It is kept beside the findings, is shown to a
language model as unverified, and reaches a report only as far as findings support it
(``reporting/language/crude_report.py``).

Keys of the card's ``options``:

=============  ===================================================================================
Key            Meaning
=============  ===================================================================================
vocabulary     The words, in the order of their numbers (`inference.report_vocabulary`)
cleaning       Whose rules made the words: ``iu_xray`` or ``mimic_cxr``
beams          Reports that are followed at once (3)
contrast       How much of what is written without an image is taken off (0: nothing)
longest        Most words of a report (100)
blocked_ngram  No run of so many words comes twice (0: every repetition is allowed)
notes          Sentences that every result carries
=============  ===================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.admission import is_blocked
from inference.beam_search import search_beams
from inference.findings import Analysis, Outcome
from inference.frontal_films import choose_frontal
from inference.networks.r2gen_cmn import R2GenCMN, Writing
from inference.packages import ModelPackage, ModelPackageError
from inference.radiograph import Radiograph
from inference.radiograph_preparation import prepare_radiograph
from inference.report_vocabulary import Cleaning, Vocabulary, write_sentences
from inference.volume import Volume

_PLAUSIBLE: Final = 0.1
"""Share of the likeliest word's probability that another word must have to be written."""


class Lender(Protocol):
    """What report writing needs of a runner."""

    def borrow(self, package: ModelPackage) -> AbstractContextManager[tuple[torch.nn.Module, torch.device]]:
        """Lend the package's network and its device."""
        ...


class WritingOptions(BaseModel):
    """The card's options, as this task reads them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: tuple[str, ...] = Field(min_length=1)
    cleaning: Cleaning = "iu_xray"
    beams: int = Field(default=3, ge=1, le=16)
    contrast: float = Field(default=0.0, ge=0.0, le=1.0)
    longest: int = Field(default=100, ge=1, le=512)
    blocked_ngram: int = Field(default=0, ge=0)
    notes: tuple[str, ...] = ()


def write_report(
    package: ModelPackage,
    images: Mapping[str, Volume | Sequence[Radiograph]],
    runner: Lender,
    study_uid: str,
) -> Outcome:
    """Word a crude report of a study's first frontal radiograph.

    Parameters
    ----------
    package : ModelPackage
        A model of the task ``report``.
    images : mapping
        What fills each role.
    runner : Lender
        Where the network runs.
    study_uid : str
        Study Instance UID.

    Returns
    -------
    Outcome
        An analysis without findings, and the sentences as ``crude_report``; none where a doubt blocks.

    Raises
    ------
    MissingInputError
        If no role is filled.
    ModelPackageError
        If the card's network or options are not those of a report writer.
    DeviceMemoryError, DeviceFailureError
        As the runner raises them.
    """
    options = read_options(package)
    chosen = choose_frontal(package, images)
    analysis = Analysis(
        model=package.identity,
        study_uid=study_uid,
        inputs=chosen.inputs,
        findings=(),
        notes=chosen.notes,
        doubts=chosen.doubts,
    )
    if is_blocked(chosen.doubts):
        return Outcome(analysis=analysis)
    with runner.borrow(package) as (network, device):
        writer = require_writer(package, network)
        shown = [chosen.films[min(view, len(chosen.films) - 1)] for view in range(writer.views)]
        prepared = np.concatenate([prepare_radiograph(film, package.card.input.matrix) for film in shown])
        text = write_texts(writer, torch.from_numpy(prepared[None]).to(device), options)[0]
    return Outcome(analysis=analysis, crude_report=write_sentences(text))


def read_options(package: ModelPackage) -> WritingOptions:
    """Return what the card says about words and search.

    Raises
    ------
    ModelPackageError
        If the card's options are others.
    """
    try:
        return WritingOptions.model_validate(package.card.options)
    except ValidationError as exc:
        raise ModelPackageError(
            f"{package.card.name}: options do not fit a report writer: see inference/report_writing.py."
        ) from exc


def require_writer(package: ModelPackage, network: torch.nn.Module) -> R2GenCMN:
    """Return the network if it writes reports with the card's vocabulary.

    Raises
    ------
    ModelPackageError
        If it does not.
    """
    if not isinstance(network, R2GenCMN):
        raise ModelPackageError(f"{package.card.name}: a report is written by the network r2gen_cmn only.")
    words = network.encoder_decoder.logit.out_features - 1
    if words != len(read_options(package).vocabulary):
        raise ModelPackageError(
            f"{package.card.name}: the network knows {words} words, the card lists another number: "
            "take vocabulary and weights from one training."
        )
    return network


def write_texts(network: R2GenCMN, images: torch.Tensor, options: WritingOptions) -> list[str]:
    """Return the text of each of (N, views, S, S) prepared images, in the network's own words."""
    with torch.inference_mode():
        patches = network.patches(images)
    return write_from_patches(network, patches, options)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pair:
    """Reports of images, and the same words without an image."""

    seen: Writing
    blank: Writing

    def take(self, rows: torch.Tensor) -> _Pair:
        """Return the reports of the given rows."""
        return _Pair(seen=self.seen.take(rows), blank=self.blank.take(rows))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ContrastiveWriter:
    """Writes what the image makes likelier, not what is likely anyway.

    Most films show none of a rare finding, so that the likeliest report of almost every film names none. A
    share of the log-probability that a word has without an image is taken off; only words that are plausible
    with it may come.

    References
    ----------
    Li et al., Contrastive decoding, arXiv:2210.15097 (the plausibility constraint).
    """

    network: R2GenCMN
    contrast: float

    def begin(self, patches: torch.Tensor) -> _Pair:
        """Begin a report for each of (N, patches, channels) features."""
        blank = self.network.begin(self.network.blank(patches))
        return _Pair(seen=self.network.begin(patches), blank=blank)

    def advance(self, writing: _Pair, tokens: torch.Tensor) -> tuple[torch.Tensor, _Pair]:
        """Add (N,) tokens; return (N, tokens) log-probabilities of the next ones, and the reports."""
        seen, with_image = self.network.advance(writing.seen, tokens)
        blank, without = self.network.advance(writing.blank, tokens)
        is_plausible = seen >= seen.max(dim=-1, keepdim=True).values + math.log(_PLAUSIBLE)
        changed = (seen - self.contrast * blank).masked_fill(~is_plausible, float("-inf"))
        return changed.log_softmax(dim=-1), _Pair(seen=with_image, blank=without)


def write_from_patches(network: R2GenCMN, patches: torch.Tensor, options: WritingOptions) -> list[str]:
    """Return the text of each of (N, patches, channels) features."""
    vocabulary = Vocabulary(words=options.vocabulary, cleaning=options.cleaning)
    positions = cast("torch.Tensor", network.encoder_decoder.model.tgt_embed[1].pe).shape[1]
    search = partial(
        search_beams,
        count=len(patches),
        beams=options.beams,
        longest=min(options.longest, positions),
        blocked_ngram=options.blocked_ngram,
        device=patches.device,
    )
    contrastive = ContrastiveWriter(network=network, contrast=options.contrast)
    with torch.inference_mode():
        written = (
            search(contrastive, contrastive.begin(patches))
            if options.contrast > 0.0
            else search(network, network.begin(patches))
        )
    return [vocabulary.decode(one.tokens) for one in written]
