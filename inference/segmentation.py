"""Pure. One segmentation task: volumes in their roles in, an analysis and its mask out.

The runner is passed in; everything else here is arithmetic on arrays. What stood in for what, and what a
reader must know about the result, goes into the analysis and is never silently dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from dicom_node.errors import PermanentError
from inference.admission import admit_volume, is_blocked
from inference.cards import LabelCard, RoleCard
from inference.components import label_components
from inference.findings import (
    Analysis,
    Doubt,
    Finding,
    Laterality,
    Mask,
    Measurement,
    Outcome,
    Presence,
    Quantity,
    SeriesInput,
)
from inference.measurement import diameters, key_slice, laterality, midline_x_mm, volume_ml
from inference.orientation import AxialTurn, axial_turn
from inference.packages import ModelPackage
from inference.preparation import MATRIX, prepare_slices, restore_slices, stack_context
from inference.resampling import RegistrationError, resample_to
from inference.runner import Prediction, Progress
from inference.segmentation_doubt import (
    Lender,
    NetworkView,
    explain_region,
    judge_familiarity,
    region_deviations,
    wavering,
)
from inference.uncertainty import calibrate, logits_of, triage_of
from inference.volume import Volume

MAX_FINDINGS: Final = 10
"""Most findings of one label; smaller regions are united into the last one."""

_AS_STORED: Final = AxialTurn(flips_rows=False, flips_columns=False)

_SLICE_MARGIN: Final = 1
"""Slices beyond a region that help to find the midline of the head."""


class MissingInputError(PermanentError):
    """A study does not hold what the model cannot do without."""


class Predictor(Lender, Protocol):
    """What a segmentation needs of a runner: predictions, and the network itself for doubt and heat maps."""

    def predict(
        self, package: ModelPackage, batch: npt.NDArray[np.float32], progress: Progress | None = None
    ) -> Prediction:
        """Return the probabilities of (N, C, H, W) prepared images."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInput:
    """Volumes as a network takes them.

    Attributes
    ----------
    channels : ndarray
        (C, D, H, W) float32 raw intensities on the grid of the reference.
    inputs : tuple of SeriesInput
        The series read, the reference first.
    substitutions : tuple of pairs
        (missing role, role that stood in).
    notes : tuple of str
        One sentence a substitution.
    """

    channels: npt.NDArray[np.float32]
    inputs: tuple[SeriesInput, ...]
    substitutions: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Region:
    """A connected region, or several that were united."""

    label: LabelCard
    mask: npt.NDArray[np.bool_]
    united: int = 1


def segment(
    package: ModelPackage,
    volumes: Mapping[str, Volume],
    runner: Predictor,
    study_uid: str,
    progress: Progress | None = None,
) -> Outcome:
    """Segment one study.

    Parameters
    ----------
    package : ModelPackage
        A segmentation model.
    volumes : mapping of str to Volume
        Volumes by role of the package's input contract; optional roles may be missing.
    runner : Predictor
        Where the network runs.
    study_uid : str
        Study Instance UID.
    progress : callable or None
        Called with (slices done, slices).

    Returns
    -------
    Outcome
        Findings largest first, the label map on the frames of the reference series, and where the card names
        a layer for it the heat map of the largest finding on the frames that hold it. A study without any
        region above the threshold has no finding, an empty mask and a note that says what that means. A study
        that is not what the model reads has a blocking doubt, no finding and an empty mask.

    Raises
    ------
    MissingInputError
        If a required role is missing.
    UnsuitablePlaneError
        If the reference's slices do not lie in the plane that the model reads.
    RegistrationError
        If a required series does not lie on the reference's frame of reference.
    DeviceMemoryError, ModelPackageError
        As the runner raises them.
    """
    reference = _reference_volume(package, volumes)
    turn = axial_turn(reference) if package.card.input.plane == "axial" else _AS_STORED
    model_input = assemble_input(package, volumes)
    doubts = _admit(package, volumes, model_input)
    if is_blocked(doubts):
        return _outcome(package, reference, model_input, study_uid, doubts=doubts)
    slices = stack_context(prepare_slices(turn.apply(model_input.channels)), package.card.input.context)
    view = NetworkView(package=package, slices=slices, turn=turn, reference=reference)
    doubts += judge_familiarity(view, runner)
    if is_blocked(doubts):
        return _outcome(package, reference, model_input, study_uid, doubts=doubts)
    probabilities = turn.apply(
        restore_probabilities(predict_slices(package, slices, runner, progress), reference)
    )
    regions = find_regions(package, probabilities)
    deviations = region_deviations(view, [(region.label, region.mask) for region in regions], runner)
    findings = tuple(
        _describe(number, region, probabilities[region.label.value - 1], reference, deviation)
        for number, (region, deviation) in enumerate(zip(regions, deviations, strict=True), start=1)
    )
    outcome = _outcome(
        package,
        reference,
        model_input,
        study_uid,
        findings=findings,
        regions=regions,
        doubts=doubts + wavering(package, findings),
    )
    card = package.card.doubt.triage
    if card is not None:
        triage = triage_of(abnormal_score(probabilities, package.card.min_component_voxels), card)
        outcome = replace(outcome, analysis=replace(outcome.analysis, triage=triage))
    if not regions:
        return outcome
    heatmaps = explain_region(view, regions[0].label, regions[0].mask, findings[0].finding_id, runner)
    return replace(outcome, heatmaps=heatmaps)


def _admit(
    package: ModelPackage, volumes: Mapping[str, Volume], model_input: ModelInput
) -> tuple[Doubt, ...]:
    """Look at every series that is read; one sentence is said once."""
    sites = {label.site for label in package.card.labels}
    doubts = [
        doubt
        for series in model_input.inputs
        for doubt in admit_volume(volumes[series.role], package.card.input.preparation, sites)
    ]
    return tuple(dict.fromkeys(doubts))


def _outcome(
    package: ModelPackage,
    reference: Volume,
    model_input: ModelInput,
    study_uid: str,
    *,
    findings: tuple[Finding, ...] = (),
    regions: tuple[_Region, ...] = (),
    doubts: tuple[Doubt, ...] = (),
) -> Outcome:
    """Put together what is said and what is outlined."""
    labels = np.zeros(reference.array.shape, dtype=np.uint8)
    for number, region in enumerate(regions, start=1):
        labels[region.mask] = number
    is_answered = not is_blocked(doubts)
    return Outcome(
        analysis=Analysis(
            model=package.identity,
            study_uid=study_uid,
            inputs=model_input.inputs,
            findings=findings,
            substitutions=model_input.substitutions,
            notes=model_input.notes + (_result_notes(package, regions) if is_answered else ()),
            doubts=doubts,
        ),
        mask=Mask(labels=labels, series_uid=reference.series_uid, frames=reference.frames),
    )


def abnormal_score(probabilities: npt.NDArray[np.float32], voxels: int) -> float:
    """Return how probable an abnormality is anywhere: the mean of the most probable voxels.

    Parameters
    ----------
    probabilities : ndarray
        (labels, D, H, W) float32.
    voxels : int
        How many voxels make the smallest region that is reported.
    """
    values = probabilities.ravel()
    count = min(max(voxels, 1), values.size)
    return float(np.partition(values, values.size - count)[values.size - count :].mean(dtype=np.float64))


def predict_slices(
    package: ModelPackage,
    slices: npt.NDArray[np.float32],
    runner: Predictor,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Predict slices, with their mirror images and calibrated where the card asks for it.

    A temperature acts on the logit of the (mirrored and averaged) probability; the card's thresholds are of
    calibrated probabilities.

    Parameters
    ----------
    package : ModelPackage
        The model.
    slices : ndarray
        (D, C, MATRIX, MATRIX) float32 prepared slices with their context.

    Returns
    -------
    ndarray
        (D, labels, MATRIX, MATRIX) float32 probabilities.
    """
    temperatures = package.card.doubt.temperatures
    probabilities = _predict_views(package, slices, runner, progress)
    if not temperatures or package.card.network.activation != "sigmoid":
        return probabilities
    return calibrate(logits_of(probabilities), temperatures, axis=1)


def _predict_views(
    package: ModelPackage,
    slices: npt.NDArray[np.float32],
    runner: Predictor,
    progress: Progress | None,
) -> npt.NDArray[np.float32]:
    """Return the (D, labels, MATRIX, MATRIX) probabilities of slices, averaged with their mirror images'."""
    if not package.card.test_time_mirror:
        return runner.predict(package, slices, progress).probabilities
    total = 2 * len(slices)
    sides = []
    for index, view in enumerate((slices, np.ascontiguousarray(slices[..., ::-1]))):
        done_before = index * len(slices)
        prediction = runner.predict(
            package,
            view,
            None if progress is None else _shifted(progress, done_before, total),
        )
        sides.append(prediction.probabilities)
    return np.asarray((sides[0] + sides[1][..., ::-1]) / 2, dtype=np.float32)


def _shifted(progress: Progress, done_before: int, total: int) -> Progress:
    """Return a progress report for one part of a longer task."""
    return lambda done, _: progress(done_before + done, total)


def assemble_input(package: ModelPackage, volumes: Mapping[str, Volume]) -> ModelInput:
    """Bring the volumes onto the reference's grid, in channel order, with substitutes for missing roles.

    Parameters
    ----------
    package : ModelPackage
        Whose input contract holds.
    volumes : mapping of str to Volume
        Volumes by role. A role that holds its substitute's series counts as missing.

    Returns
    -------
    ModelInput
        Channels and what was done to get them.

    Raises
    ------
    MissingInputError
        If a required role is missing.
    RegistrationError
        If a required series cannot be brought onto the reference's grid.
    """
    reference = _reference_volume(package, volumes)
    reference_name = package.card.input.reference.name
    on_grid: dict[str, npt.NDArray[np.float32]] = {}
    reasons: dict[str, str] = {}
    for role in package.card.input.roles:
        if role.name not in volumes or _is_stand_in(role, volumes):
            reasons[role.name] = "The study has no series for it."
            continue
        try:
            on_grid[role.name] = resample_to(volumes[role.name], reference)
        except RegistrationError as exc:
            if role.required:
                raise
            reasons[role.name] = str(exc)
    substitutions = tuple(
        (role.name, role.substitute or reference_name)
        for role in package.card.input.roles
        if role.name not in on_grid
    )
    sources = {name: name for name in on_grid} | dict(substitutions)
    used = [reference_name, *(name for name in on_grid if name != reference_name)]
    return ModelInput(
        channels=np.stack([on_grid[sources[role.name]] for role in package.card.input.roles]),
        inputs=tuple(
            SeriesInput(role=name, series_uid=volumes[name].series_uid, frames=volumes[name].frames)
            for name in used
        ),
        substitutions=substitutions,
        notes=tuple(
            f"The {substitute} series stood in for the {missing} series. {reasons[missing]}"
            for missing, substitute in substitutions
        ),
    )


def _is_stand_in(role: RoleCard, volumes: Mapping[str, Volume]) -> bool:
    """Return whether routing has already put the substitute's series in a role."""
    if role.substitute is None or role.substitute not in volumes:
        return False
    return volumes[role.name].series_uid == volumes[role.substitute].series_uid


def restore_probabilities(
    probabilities: npt.NDArray[np.float32], reference: Volume
) -> npt.NDArray[np.float32]:
    """Map a network's output back onto the reference grid.

    Parameters
    ----------
    probabilities : ndarray
        (D, labels, MATRIX, MATRIX) float32.
    reference : Volume
        The grid that was prepared.

    Returns
    -------
    ndarray
        (labels, D, H, W) float32.
    """
    _, height, width = reference.array.shape
    return np.stack([restore_slices(maps, height, width) for maps in np.moveaxis(probabilities, 1, 0)])


def find_regions(package: ModelPackage, probabilities: npt.NDArray[np.float32]) -> tuple[_Region, ...]:
    """Return the regions to report: connected over faces, edges and corners, largest first.

    Parameters
    ----------
    package : ModelPackage
        Its threshold and smallest region hold; the latter is counted at the network's matrix and scaled here.
    probabilities : ndarray
        (labels, D, H, W) float32.

    Returns
    -------
    tuple of region
        At most `MAX_FINDINGS` a label; a voxel belongs to its most probable label.
    """
    winner = probabilities.argmax(axis=0)
    is_marked = probabilities.max(axis=0) >= package.card.threshold
    scale = (max(probabilities.shape[2:]) / MATRIX) ** 2
    min_voxels = max(round(package.card.min_component_voxels * scale), 1)
    regions: list[_Region] = []
    for label in package.card.labels:
        components, sizes = label_components(is_marked & (winner == label.value - 1))
        order = [i + 1 for i in np.argsort(-sizes, kind="stable") if sizes[i] >= min_voxels]
        single = order if len(order) <= MAX_FINDINGS else order[: MAX_FINDINGS - 1]
        regions += [_Region(label=label, mask=components == i) for i in single]
        if len(single) < len(order):
            rest = order[len(single) :]
            regions.append(_Region(label=label, mask=np.isin(components, rest), united=len(rest)))
    return tuple(regions)


def _reference_volume(package: ModelPackage, volumes: Mapping[str, Volume]) -> Volume:
    """Return the volume of the reference role; refuse a study that lacks a required one."""
    missing = [role.name for role in package.card.input.roles if role.required and role.name not in volumes]
    if missing:
        raise MissingInputError(
            f"The study has no usable series for the role {', '.join(missing)} of {package.card.name}: "
            "acquire it, or "
            "name its series description in the model's card or the routing rules."
        )
    return volumes[package.card.input.reference.name]


def _describe(
    number: int,
    region: _Region,
    probability: npt.NDArray[np.float32],
    reference: Volume,
    deviation: float | None,
) -> Finding:
    """Measure one region. United regions have no diameter: a line between them would measure nothing."""
    measured_ml = volume_ml(region.mask, reference.affine)
    measurements = [Measurement(quantity=Quantity.VOLUME, value=measured_ml, unit="mL")]
    long_axis = perpendicular_axis = None
    if region.united == 1:
        lines = diameters(region.mask, reference.affine, reference.frames)
        long_axis, perpendicular_axis = lines.long_axis, lines.perpendicular_axis
        measurements += [
            Measurement(quantity=Quantity.LONG_AXIS, value=long_axis.length_mm, unit="mm"),
            Measurement(quantity=Quantity.PERPENDICULAR_AXIS, value=perpendicular_axis.length_mm, unit="mm"),
        ]
    return Finding(
        finding_id=f"F{number}",
        concept=region.label.concept,
        site=region.label.site,
        presence=Presence.PRESENT,
        laterality=_side(region.mask, reference),
        segment_number=number,
        confidence=float(probability[region.mask].mean(dtype=np.float64)),
        uncertainty=deviation,
        measurements=tuple(measurements),
        long_axis=long_axis,
        perpendicular_axis=perpendicular_axis,
        key_frame=reference.frames[key_slice(region.mask)],
    )


def _side(mask: npt.NDArray[np.bool_], reference: Volume) -> Laterality | None:
    """Return the side of a region relative to the middle of the head on the region's own slices."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    around = slice(max(int(slices[0]) - _SLICE_MARGIN, 0), int(slices[-1]) + _SLICE_MARGIN + 1)
    midline_mm = midline_x_mm(reference.array, reference.affine, around)
    return None if midline_mm is None else laterality(mask, reference.affine, midline_mm)


def _result_notes(package: ModelPackage, regions: tuple[_Region, ...]) -> tuple[str, ...]:
    """Return what a reader must know about the findings as a whole."""
    if not regions:
        return (f"{package.card.title} marked no region. This does not exclude disease.",)
    return tuple(
        f"{region.united} smaller regions are united in finding F{number}, which has no diameters."
        for number, region in enumerate(regions, start=1)
        if region.united > 1
    )
