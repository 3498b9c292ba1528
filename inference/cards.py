"""Pure. The card of a model package, ``model.yaml``: what the model is for, what it reads, how good it is.

A card is data: nothing in it is evaluated, imported or called. `packages` reads it and the files it names.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

CARD_NAME: Final = "model.yaml"
"""File name of a package's card."""

_SEMANTIC_VERSION: Final = r"^\d+\.\d+\.\d+$"
_NAME: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_ROLE: Final = r"^[a-z0-9]+(_[a-z0-9]+)*$"
_PLAIN_FILE: Final = r"^[A-Za-z0-9_][A-Za-z0-9._-]*\.(safetensors|onnx|ts|pt)$"
_PACKAGE_FILE: Final = (
    r"^([A-Za-z0-9_][A-Za-z0-9._-]*/){0,3}[A-Za-z0-9_][A-Za-z0-9._-]*\.(safetensors|onnx|ts|pt|json)$"
)
_SHA256: Final = r"^[0-9a-f]{64}$"
_ORIENTATION: Final = r"^[RLAPSI]{3}$"

_SUFFIXES: Final = {
    "builtin": (".safetensors",),
    "torchscript": (".ts", ".pt"),
    "onnx": (".onnx",),
    "monai_bundle": (".json", ".pt", ".ts"),
}
"""What the files of each format of network are called."""

Modality = Literal["CT", "MR", "DX", "CR"]
Task = Literal["segmentation", "detection", "classification", "fusion", "report"]


def _to_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class _CardPart(BaseModel):
    """Part of a card: unknown fields are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkCard(_CardPart):
    """The network: one of ours with its constructor arguments, or a file of another framework."""

    format: Literal["builtin", "torchscript", "onnx", "monai_bundle"] = Field(
        default="builtin", description="What kind of network it is."
    )
    builtin: str | None = Field(default=None, description="Name of a network in inference/networks/.")
    arguments: dict[str, JsonValue] = Field(default_factory=dict, description="Constructor arguments.")
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")] = Field(
        default="bundle", description="Folder of the MONAI bundle in the package."
    )
    activation: Literal["sigmoid", "softmax", "none"] = Field(
        default="sigmoid",
        description="What turns the network's output into probabilities. With softmax and none the first of "
        "one output more than there are labels is the background.",
    )

    @model_validator(mode="after")
    def _check_name(self) -> NetworkCard:
        if (self.format == "builtin") != (self.builtin is not None):
            raise ValueError("network: name a builtin, or another format, not both and not neither")
        return self


class WindowCard(_CardPart):
    """A CT window: what lies outside is clipped to it."""

    centre_hu: float
    width_hu: Annotated[float, Field(gt=0)]


class RoleCard(_CardPart):
    """One series that the model reads; the order of the roles is the order of the input channels."""

    name: Annotated[str, Field(pattern=_ROLE, description="Name of the role, for example flair.")]
    required: bool = Field(default=False, description="Whether the model cannot read the study without it.")
    modality: Annotated[tuple[Modality, ...], BeforeValidator(_to_tuple)] = Field(
        default=(), description="Modality of this role where it differs from that of the input."
    )
    any_description: tuple[str, ...] = Field(
        default=(), description="Glob patterns; Series Description must match one, case-insensitively."
    )
    none_of: tuple[str, ...] = Field(
        default=(), description="Glob patterns that Series Description must not match."
    )
    min_images: Annotated[int, Field(ge=1)] = Field(default=1, description="Fewest images of the series.")
    substitute: str | None = Field(
        default=None, description="Role whose series stands in when this one is missing."
    )


class InputCard(_CardPart):
    """What the model reads."""

    modality: Annotated[
        tuple[Modality, ...],
        BeforeValidator(_to_tuple),
        Field(min_length=1, description="Modality of the roles; one, or a list that is taken alike."),
    ]
    plane: Literal["axial", "any"] = Field(
        default="any", description="Plane of the slices; axial ones are turned nose up before they are read."
    )
    dimensions: Literal[2, 3] = Field(
        default=2, description="2: slices or radiographs one by one; 3: whole volumes."
    )
    matrix: Annotated[int, Field(ge=1)] = Field(description="Side of the square network input, pixels.")
    context: Annotated[int, Field(ge=0, le=5)] = Field(
        default=0, description="Neighbouring slices on each side that are seen with a slice, as channels."
    )
    preparation: Literal["mr_tissue", "ct_windows", "radiograph", "unit_range"] = Field(
        default="mr_tissue", description="How intensities become network input (inference/preparation.py)."
    )
    windows: tuple[WindowCard, ...] = Field(
        default=(), description="Windows of a CT, one channel each, for preparation ct_windows."
    )
    spacing_mm: tuple[float, float, float] | None = Field(
        default=None,
        description="Voxel of a 3-D network along the axes of orientation; volumes are resampled to it.",
    )
    orientation: Annotated[str, Field(pattern=_ORIENTATION)] = Field(
        default="RAS",
        description="Where the three axes of a 3-D network point: R or L, A or P, S or I, in its own order.",
    )
    is_any_role_enough: bool = Field(
        default=False, description="Whether the model reads whichever of its roles are there (fusion)."
    )
    roles: Annotated[tuple[RoleCard, ...], Field(min_length=1, description="Series, in channel order.")]

    @model_validator(mode="after")
    def _check_roles(self) -> InputCard:
        by_name = {role.name: role for role in self.roles}
        if len(by_name) != len(self.roles):
            raise ValueError("roles: every role needs its own name")
        if self.dimensions == 3 and self.spacing_mm is None:  # noqa: PLR2004 - as the field says
            raise ValueError("spacing_mm: a 3-D network needs the voxel that it was trained on")
        if {frozenset("RL"), frozenset("AP"), frozenset("SI")} != {
            pair for pair in map(frozenset, ("RL", "AP", "SI")) if pair & set(self.orientation)
        }:
            raise ValueError("orientation: name each of the three axes once, for example RAS")
        if self.is_any_role_enough:
            return self
        if not any(role.required for role in self.roles):
            raise ValueError("roles: one role must be required, its series carries the result")
        for role in self.roles:
            if role.substitute is not None and not getattr(by_name.get(role.substitute), "required", False):
                raise ValueError(f"roles: the substitute of {role.name} must be a required role")
            if not role.required and role.substitute is None:
                raise ValueError(f"roles: {role.name} is optional and needs a substitute")
        return self

    @property
    def reference(self) -> RoleCard:
        """The first required role: results lie on the frames of its series."""
        return next((role for role in self.roles if role.required), self.roles[0])

    @property
    def channels(self) -> int:
        """Channels of a slice as a 2-D network takes it."""
        each = max(len(self.windows), 1) if self.preparation == "ct_windows" else 1
        return len(self.roles) * each * (2 * self.context + 1)


class LabelCard(_CardPart):
    """One thing that the model marks; label ``value`` is output channel ``value - 1``."""

    value: Annotated[int, Field(ge=1, le=255)] = Field(description="Value in the label map.")
    name: str = Field(description="Name for people.")
    concept: str = Field(description="Key of the finding in reporting/codes.py.")
    site: str = Field(description="Key of the anatomic site in reporting/codes.py.")
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Probability from which this label is reported, where it has its own."
    )


class TriageCard(_CardPart):
    """Thresholds on the calibrated probability of an abnormal study, from calibration patients."""

    low: Annotated[float, Field(ge=0, le=1)] = Field(description="Below this a study is low risk.")
    high: Annotated[float, Field(ge=0, le=1)] = Field(description="From this on a study is high risk.")
    negative_predictive_value: Annotated[float, Field(ge=0, le=1)] = Field(
        description="Lower 95 % confidence bound for studies called low risk."
    )
    positive_predictive_value: Annotated[float, Field(ge=0, le=1)] = Field(
        description="Lower 95 % confidence bound for studies called high risk."
    )
    calibration_patients: Annotated[int, Field(ge=1)]


class FamiliarityCard(_CardPart):
    """How far an input may lie from the training images before it counts as unfamiliar."""

    file: Annotated[str, Field(pattern=_PLAIN_FILE)] = Field(
        description="Mean and whitening of the training features, safetensors."
    )
    sha256: Annotated[str, Field(pattern=_SHA256)]
    layer: str | None = Field(
        default=None,
        description="Module whose pooled output describes an image; None is explanation_layer.",
    )
    threshold: Annotated[float, Field(gt=0)] = Field(
        description="Distance above which the answer is doubted."
    )
    refusal: Annotated[float, Field(gt=0)] = Field(description="Distance above which no answer is given.")


class DoubtCard(_CardPart):
    """How sure the model is, and how that was calibrated."""

    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="Divisor of each label's logit; empty leaves logits as they are."
    )
    dropout_passes: Annotated[int, Field(ge=0, le=64)] = Field(
        default=0, description="Monte-Carlo dropout passes for the uncertainty; 0 gives none."
    )
    largest_uncertainty: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Standard deviation of the passes above which a finding is of low confidence.",
    )
    triage: TriageCard | None = None
    familiarity: FamiliarityCard | None = None


class FileCard(_CardPart):
    """One file of a package and its digest."""

    file: Annotated[
        str, Field(pattern=_PACKAGE_FILE, description="File of the package, relative to the card.")
    ]
    sha256: Annotated[str, Field(pattern=_SHA256, description="SHA-256 of the file, hexadecimal.")]


class WeightsCard(_CardPart):
    """The files of the weights and their digests."""

    files: Annotated[tuple[FileCard, ...], Field(min_length=1, description="One file, or shards in order.")]
    dtype: Literal["float16", "bfloat16", "float32"] = Field(description="How the weights are stored.")

    @property
    def sha256(self) -> str:
        """Digest of the weights: that of the one file, or of the shards' digests in order."""
        digests = [file.sha256 for file in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


class ModelCard(_CardPart):
    """The card of a model package: what it is for, what it reads, what it marks, how good it is."""

    name: Annotated[str, Field(pattern=_NAME, description="Name of the package: its folder.")]
    version: Annotated[str, Field(pattern=_SEMANTIC_VERSION, description="Version: the folder in it.")]
    title: Annotated[str, Field(max_length=64, description="Name for people, at most 64 characters (LO).")]
    task: Task = Field(description="What the model does.")
    network: NetworkCard
    input: InputCard
    labels: Annotated[tuple[LabelCard, ...], Field(min_length=1)]
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="Probability from which a voxel, box or label without its own is reported."
    )
    min_component_voxels: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Smallest region that is reported, voxels of the network's matrix."
    )
    test_time_mirror: bool = Field(
        default=False, description="Whether the mirrored slice is read too and the two answers averaged."
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="What the task's own code reads; each task documents its keys."
    )
    explanation_layer: str | None = Field(
        default=None, description="Module of the network on whose output Grad-CAM is computed."
    )
    doubt: DoubtCard = DoubtCard()
    intended_use: str = Field(min_length=1)
    limits: JsonValue = Field(description="What the model must not be used for, and where it fails.")
    training_data: JsonValue = Field(description="What it was trained on.")
    metrics: JsonValue = Field(description="Measured figures with their confidence intervals.")
    licence: str = Field(min_length=1, description="Licence of the weights.")
    weights: WeightsCard

    @model_validator(mode="after")
    def _check_labels(self) -> ModelCard:
        if [label.value for label in self.labels] != list(range(1, len(self.labels) + 1)):
            raise ValueError("labels: number the values 1, 2, ... in the order of the output channels")
        suffixes = _SUFFIXES[self.network.format]
        for file in self.weights.files:
            if not file.file.endswith(suffixes):
                raise ValueError(
                    f"weights.files: {file.file} is no file of a {self.network.format} network "
                    f"({', '.join(suffixes)})"
                )
        if self.network.format in {"torchscript", "onnx"} and len(self.weights.files) != 1:
            raise ValueError(f"weights.files: a {self.network.format} network is one file")
        temperatures = self.doubt.temperatures
        if temperatures and len(temperatures) not in {1, len(self.labels)}:
            raise ValueError("doubt.temperatures: give one for all labels, or one a label")
        return self

    def threshold_of(self, label: LabelCard) -> float:
        """Return the probability from which a label is reported."""
        return self.threshold if label.threshold is None else label.threshold


def card_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of the card, for editors and documentation."""
    return ModelCard.model_json_schema()
