"""Pure. One fusion task: CT, MR or both of one patient in; tumour class, grade, risk and heat maps out.

The runner is passed in. The two series may come from two studies: each goes through its own encoder, so
neither is resampled onto the other. What was read, what was missing and what the answer cannot say goes into
the notes.

Keys of the card's ``options``:

===============  ===================================================================================
Key              Meaning
===============  ===================================================================================
slices           Most slices of each series that are read, evenly spaced among those with enough head
risk_median      Log hazard of the median training patient
risk_tertiles    Log hazards between the lower, the middle and the higher third of them
warning          Sentence that goes with every grade and risk; empty when both are proven
===============  ===================================================================================
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dicom_node.errors import PermanentError
from inference.admission import admit_volume, is_blocked
from inference.explain import grad_cam
from inference.findings import (
    Analysis,
    Caveat,
    Doubt,
    Estimate,
    Finding,
    Heatmap,
    Outcome,
    Presence,
    Scale,
    SeriesInput,
)
from inference.head_slices import HeadSlices, choose_slices, mr_unit, paste, prepare_slices, window_unit
from inference.networks.dual_encoder import HEALTHY, DualEncoder, FusionLogits, grade_probabilities
from inference.orientation import AxialTurn, UnsuitablePlaneError, axial_turn
from inference.packages import ModelPackage, ModelPackageError
from inference.radiograph import Radiograph
from inference.runner import Progress
from inference.segmentation import MissingInputError
from inference.uncertainty import dropout_deviation
from inference.volume import Volume

CLASSES: Final = ("healthy", "benign", "malignant")
"""Categories of the class head, in the order of its logits."""

GRADES: Final = ("grade_2", "grade_3")
"""Categories of the ordinal head."""

RISK_GROUPS: Final = ("lower", "middle", "higher")
"""Thirds of the training patients."""

_NAMES: Final[Mapping[str, str]] = MappingProxyType({"ct": "CT", "mr": "MR"})
_PREPARATIONS: Final[Mapping[str, str]] = MappingProxyType({"ct": "ct_windows", "mr": "mr_tissue"})
_SITES: Final = ("brain",)
_CT_FINDING: Final = "F1"
_AS_STORED: Final = AxialTurn(flips_rows=False, flips_columns=False)
_SEED_BYTES: Final = 4


class Lender(Protocol):
    """What a fusion needs of a runner."""

    def borrow(self, package: ModelPackage) -> AbstractContextManager[tuple[torch.nn.Module, torch.device]]:
        """Lend the package's network and its device."""
        ...


class _Options(BaseModel):
    """The card's options, as this task reads them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slices: int = Field(default=16, ge=1)
    risk_median: float = 0.0
    risk_tertiles: tuple[float, float] = (0.0, 0.0)
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sight:
    """One series as the network sees it."""

    role: str
    volume: Volume
    slices: HeadSlices
    turn: AxialTurn
    doubts: tuple[Doubt, ...]

    @property
    def as_input(self) -> SeriesInput:
        return SeriesInput(role=self.role, series_uid=self.volume.series_uid, frames=self.volume.frames)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answer:
    """What the network says of a study: (classes,) probabilities and deviations, (grades,), log hazard.

    ``suspects`` is the slice of each series that looks most like a lesion.
    """

    classes: npt.NDArray[np.float32]
    deviations: npt.NDArray[np.float32] | None
    grades: npt.NDArray[np.float32]
    log_hazard: float
    suspects: Mapping[str, int]


def fuse(
    package: ModelPackage,
    images: Mapping[str, Volume | Sequence[Radiograph]],
    runner: Lender,
    study_uid: str,
    progress: Progress | None = None,
) -> Outcome:
    """Read the CT, the MR, or both of one patient.

    Parameters
    ----------
    package : ModelPackage
        A fusion model: roles ``ct`` and ``mr``, either of which may be missing.
    images : mapping
        Volume by role. The first is the reference: its study is the one that the result belongs to.
    runner : Lender
        Where the network runs.
    study_uid : str
        Study Instance UID of the reference.
    progress : callable or None
        Called with (slices done, slices).

    Returns
    -------
    Outcome
        Estimates of the tumour class and, where a malignant tumour is the answer and the MR was read, of its
        grade and risk; a heat map a series, unless the answer is healthy. From CT alone only healthy or not
        is answered; not healthy is what its training shows, a sign of haemorrhage, as a finding. A study of
        which no series can be read has a blocking doubt and no answer.

    Raises
    ------
    MissingInputError
        If no role is filled.
    ModelPackageError
        If the package is no fusion model of this kind, or its options do not fit.
    UnsuitablePlaneError
        If the only series is not axial.
    DeviceMemoryError, DeviceFailureError
        As the runner raises them.
    """
    options = _read_options(package)
    sights, notes, doubts = _see(package, images, options)
    if not sights:
        inputs = tuple(
            SeriesInput(role=role, series_uid=volume.series_uid, frames=volume.frames)
            for role, volume in images.items()
            if isinstance(volume, Volume)
        )
        return Outcome(
            analysis=Analysis(
                model=package.identity, study_uid=study_uid, inputs=inputs, findings=(), doubts=doubts
            )
        )
    total = sum(len(sight.slices.indices) for sight in sights)
    with runner.borrow(package) as (network, device):
        if not isinstance(network, DualEncoder):
            raise ModelPackageError(f"{package.card.name}: a fusion model needs the dual_encoder network.")
        answer, bags = _ask(package, network, device, sights)
        value = _class_of(answer.classes, sights)
        heatmaps = (
            () if value == CLASSES[HEALTHY] else _explain(package, network, device, sights, bags, value)
        )
    estimates = _estimates(options, sights, answer, value)
    if progress is not None:
        progress(total, total)
    return Outcome(
        analysis=Analysis(
            model=package.identity,
            study_uid=study_uid,
            inputs=tuple(sight.as_input for sight in sights),
            findings=_findings(sights, answer, value),
            notes=(*notes, *_notes(package, sights, value)),
            estimates=estimates,
            doubts=doubts + _wavering(package, answer) + _unproven(options, estimates),
        ),
        heatmaps=heatmaps,
    )


def risk_group(log_hazard: float, tertiles: tuple[float, float]) -> str:
    """Return the third of the training patients in which a log hazard lies."""
    return RISK_GROUPS[sum(log_hazard > bound for bound in tertiles)]


def _read_options(package: ModelPackage) -> _Options:
    try:
        return _Options.model_validate(package.card.options)
    except ValidationError as exc:
        raise ModelPackageError(
            f"{package.card.name}: options do not fit a fusion model: see inference/fusion.py."
        ) from exc


def _see(
    package: ModelPackage, images: Mapping[str, Volume | Sequence[Radiograph]], options: _Options
) -> tuple[tuple[_Sight, ...], tuple[str, ...], tuple[Doubt, ...]]:
    """Prepare every series that can be read; one that cannot be is left out with a note."""
    known = {role.name for role in package.card.input.roles} & _NAMES.keys()
    volumes = {role: volume for role, volume in images.items() if role in known}
    if not volumes:
        raise MissingInputError(
            f"The study has no usable series for {package.card.name}: send an axial CT or MR of the head, or "
            "name its series description in the model's card or the routing rules."
        )
    sights, notes, refusals = [], [], []
    plane_error: UnsuitablePlaneError | None = None
    for role, volume in volumes.items():
        if not isinstance(volume, Volume):
            raise PermanentError(f"{package.card.name} reads CT and MR: send it series of axial slices.")
        try:
            sight = _see_volume(package, role, volume, options)
        except UnsuitablePlaneError as exc:
            plane_error = exc
            notes.append(f"The {_NAMES[role]} was left out: {exc}")
            continue
        if is_blocked(sight.doubts):
            refusals += [doubt for doubt in sight.doubts if doubt.is_blocking]
            notes += [
                f"The {_NAMES[role]} was left out: {doubt.sentence}"
                for doubt in sight.doubts
                if doubt.is_blocking
            ]
        else:
            sights.append(sight)
    if not sights and not refusals and plane_error is not None:
        raise plane_error
    if not sights:
        return (), tuple(notes), tuple(refusals)
    return tuple(sights), tuple(notes), tuple(doubt for sight in sights for doubt in sight.doubts)


def _see_volume(package: ModelPackage, role: str, volume: Volume, options: _Options) -> _Sight:
    """Prepare one series."""
    card = package.card.input
    turn = axial_turn(volume) if card.plane == "axial" else _AS_STORED
    doubts = admit_volume(volume, _PREPARATIONS[role], _SITES)
    is_ct = role == "ct"
    array = turn.apply(volume.array)
    if is_ct:
        window = card.windows[0] if card.windows else None
        if window is None:
            raise ModelPackageError(f"{package.card.name}: name the window of the CT in input.windows.")
        unit = window_unit(array, window.centre_hu, window.width_hu)
    else:
        unit = np.stack([mr_unit(image) for image in array])
    indices = () if is_blocked(doubts) else choose_slices(unit, options.slices, is_ct=is_ct)
    if not indices and not is_blocked(doubts):
        doubts += (
            Doubt(
                caveat=Caveat.WRONG_BODY_PART,
                sentence=f"No slice of the {_NAMES[role]} shows a head; it is not read.",
                is_blocking=True,
            ),
        )
    return _Sight(
        role=role,
        volume=volume,
        slices=prepare_slices(unit, indices, card.matrix, is_ct=is_ct),
        turn=turn,
        doubts=doubts,
    )


def _ask(
    package: ModelPackage, network: DualEncoder, device: torch.device, sights: Sequence[_Sight]
) -> tuple[_Answer, Mapping[str, torch.Tensor]]:
    """Read the study, with dropout passes over its one representation; the bags lead to heat maps."""
    temperature = (package.card.doubt.temperatures or (1.0,))[0]
    with torch.inference_mode():
        bags = {sight.role: network.summarise(sight.role, _tensor(sight, device)) for sight in sights}
        representation = network.represent(bags.get("ct"), bags.get("mr"))
        logits = network.read(representation)
        classes = (logits.tumour_class / temperature).softmax(dim=1)[0]
        suspects = {sight.role: _most_suspicious(network, sight, device) for sight in sights}
    deviations = None
    passes = package.card.doubt.dropout_passes
    if passes >= 2:  # noqa: PLR2004 - one pass has no deviation
        seed = int.from_bytes(
            hashlib.sha256(b"".join(sight.slices.images.tobytes() for sight in sights)).digest()[
                :_SEED_BYTES
            ],
            "big",
        )

        def forward() -> torch.Tensor:
            return (network.read(representation).tumour_class / temperature).softmax(dim=1)

        deviations = dropout_deviation(network, forward, passes, seed)[1][0]
    answer = _Answer(
        classes=classes.float().cpu().numpy(),
        deviations=deviations,
        grades=grade_probabilities(logits.stage)[0].float().cpu().numpy(),
        log_hazard=float(logits.risk[0]),
        suspects=suspects,
    )
    return answer, bags


def _most_suspicious(network: DualEncoder, sight: _Sight, device: torch.device) -> int:
    return sight.slices.indices[int(_suspicion(network, sight, device).argmax())]


def _suspicion(network: DualEncoder, sight: _Sight, device: torch.device) -> npt.NDArray[np.float32]:
    """Return how much each slice that was read looks like a lesion, by itself."""
    encoder = network.get_submodule(f"{sight.role}_encoder")
    with torch.inference_mode():
        scores = network.lesion_scores(sight.role, encoder(_tensor(sight, device)))
    return np.asarray(scores.float().cpu().numpy(), dtype=np.float32)


def _class_of(classes: npt.NDArray[np.float32], sights: Sequence[_Sight]) -> str:
    """Return the category that is said; from CT alone empty, unless healthy is more probable than not."""
    if classes[HEALTHY] >= 0.5:  # noqa: PLR2004 - more probable than both kinds of tumour together
        return CLASSES[HEALTHY]
    if not _has_mr(sights):
        return ""
    return CLASSES[HEALTHY + 1 + int(classes[HEALTHY + 1 :].argmax())]


def _estimates(
    options: _Options, sights: Sequence[_Sight], answer: _Answer, value: str
) -> tuple[Estimate, ...]:
    """Return what is said of the study as a whole."""
    if not value:
        return ()
    probabilities = tuple((name, float(share)) for name, share in zip(CLASSES, answer.classes, strict=True))
    said = [Estimate(scale=Scale.TUMOUR_CLASS, value=value, probabilities=probabilities)]
    if value == "malignant" and _has_mr(sights):
        grades = tuple((name, float(share)) for name, share in zip(GRADES, answer.grades, strict=True))
        said += [
            Estimate(
                scale=Scale.TUMOUR_STAGE, value=GRADES[int(answer.grades.argmax())], probabilities=grades
            ),
            Estimate(
                scale=Scale.SURVIVAL_RISK,
                value=risk_group(answer.log_hazard, options.risk_tertiles),
                number=math.exp(answer.log_hazard - options.risk_median),
            ),
        ]
    return tuple(said)


def _findings(sights: Sequence[_Sight], answer: _Answer, value: str) -> tuple[Finding, ...]:
    """Return what an abnormal CT that is alone shows: the only lesion that the CT encoder was taught."""
    if value:
        return ()
    sight = sights[0]
    return (
        Finding(
            finding_id=_CT_FINDING,
            concept="intracranial_haemorrhage",
            site="brain",
            presence=Presence.PRESENT,
            confidence=1.0 - float(answer.classes[HEALTHY]),
            uncertainty=None if answer.deviations is None else float(answer.deviations[HEALTHY]),
            key_frame=sight.volume.frames[answer.suspects[sight.role]],
        ),
    )


def _notes(package: ModelPackage, sights: Sequence[_Sight], value: str) -> tuple[str, ...]:
    """Return what a reader must know: what was read, what was missing, what is not answered."""
    read = " and ".join(f"the {_NAMES[sight.role]}" for sight in sights)
    missing = [name for role, name in _NAMES.items() if role not in {sight.role for sight in sights}]
    notes = [f"The answer rests on {read}."]
    if missing:
        notes.append(f"No {missing[0]} of the patient was read with it.")
    for sight in sights:
        count, total = len(sight.slices.indices), len(sight.volume.frames)
        bag = min(int(package.card.network.arguments.get("bag", 4) or 4), count)  # type: ignore[arg-type]
        notes.append(
            f"{count} of {total} slices of the {_NAMES[sight.role]} were read; the {bag} that look most like "
            "a lesion decide."
        )
    if not value:
        notes.append(
            "The CT looks abnormal. The model learned haemorrhage on CT and has seen no tumour there; from "
            "CT alone it does not say what the abnormality is."
        )
    if value == "malignant" and _has_mr(sights):
        notes.append(
            "Grade and risk rest on the MR alone and compare with lower-grade gliomas; they mean nothing for "
            "another tumour."
        )
    return tuple(notes)


def _wavering(package: ModelPackage, answer: _Answer) -> tuple[Doubt, ...]:
    """Say that the answer changes when features are left out."""
    largest = package.card.doubt.largest_uncertainty
    if largest is None or answer.deviations is None or float(answer.deviations.max()) <= largest:
        return ()
    return (
        Doubt(
            caveat=Caveat.LOW_CONFIDENCE,
            sentence="The model is not sure of its answer: it varies when features are left out.",
        ),
    )


def _unproven(options: _Options, estimates: Sequence[Estimate]) -> tuple[Doubt, ...]:
    """Say that grade and risk were not shown to be better than chance."""
    is_said = any(said.scale is not Scale.TUMOUR_CLASS for said in estimates)
    if not is_said or not options.warning:
        return ()
    sentence = f"Grade and survival risk are research figures. {options.warning}"
    return (Doubt(caveat=Caveat.LOW_CONFIDENCE, sentence=sentence),)


def _explain(  # noqa: PLR0917 - what was asked and what was answered
    package: ModelPackage,
    network: DualEncoder,
    device: torch.device,
    sights: Sequence[_Sight],
    bags: Mapping[str, torch.Tensor],
    value: str,
) -> tuple[Heatmap, ...]:
    """Return where each series speaks for the answer, slice by slice, the other series held as it is."""
    layer = package.card.explanation_layer
    if layer is None:
        return ()
    chosen = CLASSES.index(value) if value else None

    def score(logits: FusionLogits) -> torch.Tensor:
        classes = logits.tumour_class
        if chosen is None:  # any tumour against healthy
            return classes[:, HEALTHY + 1 :].logsumexp(dim=1) - classes[:, HEALTHY]
        return classes[:, chosen]

    heatmaps = []
    for sight in sights:
        others = {role: bag.clone() for role, bag in bags.items() if role != sight.role}
        encoder = network.get_submodule(f"{sight.role}_encoder")

        def forward(
            images: torch.Tensor,
            role: str = sight.role,
            encoder: torch.nn.Module = encoder,
            others: Mapping[str, torch.Tensor] = others,
        ) -> FusionLogits:
            features = {name: bag.expand(len(images), -1) for name, bag in others.items()}
            features[role] = encoder(images)
            return network.read(network.represent(features.get("ct"), features.get("mr")))

        maps = grad_cam(
            network,
            sight.slices.images,
            f"{sight.role}_encoder.{layer}",
            score,
            device=device,
            forward=forward,
        )
        about = str(Scale.TUMOUR_CLASS) if value else _CT_FINDING
        heatmaps.append(_spread(sight, maps, _suspicion(network, sight, device), about))
    return tuple(heatmaps)


def _spread(
    sight: _Sight, maps: npt.NDArray[np.float32], suspicion: npt.NDArray[np.float32], about: str
) -> Heatmap:
    """Put the maps of the slices that were read back onto the series, each as strong as it is suspicious."""
    values: npt.NDArray[np.float32] = np.zeros(sight.volume.array.shape, dtype=np.float32)
    _, height, width = sight.volume.array.shape
    strengths = suspicion / max(float(suspicion.max()), 1e-6)
    for index, crop, heat, strength in zip(
        sight.slices.indices, sight.slices.crops, maps, strengths, strict=True
    ):
        values[index] = np.clip(paste(heat, crop, (height, width)), 0.0, 1.0) * strength
    return Heatmap(
        values=sight.turn.apply(values),
        series_uid=sight.volume.series_uid,
        frames=sight.volume.frames,
        answer=about,
    )


def _has_mr(sights: Sequence[_Sight]) -> bool:
    return any(sight.role == "mr" for sight in sights)


def _tensor(sight: _Sight, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(sight.slices.images).to(device, memory_format=torch.channels_last)
