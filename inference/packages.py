"""Adapter: reads model packages, folders ``models/<name>/<version>/`` with a card and weights.

A package without a card, or whose weights have another SHA-256 than the card says, does not load. Weights are
safetensors only: nothing that is read here can run code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from dicom_node.errors import PermanentError
from dicom_node.planes import Plane
from dicom_node.routing import InputContract, InputRole
from inference.findings import ModelIdentity

if TYPE_CHECKING:
    import torch

CARD_NAME: Final = "model.yaml"
"""File name of a package's card."""

_SEMANTIC_VERSION: Final = r"^\d+\.\d+\.\d+$"
_NAME: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_ROLE: Final = r"^[a-z0-9]+(_[a-z0-9]+)*$"
_PLAIN_SAFETENSORS: Final = r"^[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors$"


class ModelPackageError(PermanentError):
    """A model package is unusable; the message names the file and what to do about it."""


class _CardPart(BaseModel):
    """Part of a card: unknown fields are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkCard(_CardPart):
    """Which built-in network, and its constructor arguments."""

    builtin: str = Field(description="Name of a network in inference/networks/.")
    arguments: dict[str, JsonValue] = Field(default_factory=dict, description="Constructor arguments.")


class RoleCard(_CardPart):
    """One series that the model reads; the order of the roles is the order of the input channels."""

    name: Annotated[str, Field(pattern=_ROLE, description="Name of the role, for example flair.")]
    required: bool = Field(default=False, description="Whether the model cannot read the study without it.")
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

    modality: Literal["CT", "MR"] = Field(description="Modality of every role.")
    plane: Literal["axial", "any"] = Field(
        default="any", description="Plane of the slices; axial ones are turned nose up before they are read."
    )
    matrix: Annotated[int, Field(ge=1)] = Field(description="Side of the square network input, pixels.")
    roles: Annotated[tuple[RoleCard, ...], Field(min_length=1, description="Series, in channel order.")]

    @model_validator(mode="after")
    def _check_roles(self) -> InputCard:
        by_name = {role.name: role for role in self.roles}
        if len(by_name) != len(self.roles):
            raise ValueError("roles: every role needs its own name")
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
        return next(role for role in self.roles if role.required)


class LabelCard(_CardPart):
    """One thing that the model marks; label ``value`` is output channel ``value - 1``."""

    value: Annotated[int, Field(ge=1, le=255)] = Field(description="Value in the label map.")
    name: str = Field(description="Name for people.")
    concept: str = Field(description="Key of the finding in reporting/codes.py.")
    site: str = Field(description="Key of the anatomic site in reporting/codes.py.")


class WeightsCard(_CardPart):
    """The file of weights and its digest."""

    file: Annotated[str, Field(pattern=_PLAIN_SAFETENSORS, description="File beside the card.")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file, hexadecimal.")]
    dtype: Literal["float16", "bfloat16", "float32"] = Field(description="How the weights are stored.")


class ModelCard(_CardPart):
    """The card of a model package: what it is for, what it reads, what it marks, how good it is."""

    name: Annotated[str, Field(pattern=_NAME, description="Name of the package: its folder.")]
    version: Annotated[str, Field(pattern=_SEMANTIC_VERSION, description="Version: the folder in it.")]
    title: Annotated[str, Field(max_length=64, description="Name for people, at most 64 characters (LO).")]
    task: Literal["segmentation"] = Field(description="What the model does.")
    network: NetworkCard
    input: InputCard
    labels: Annotated[tuple[LabelCard, ...], Field(min_length=1)]
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="Probability from which a voxel is marked."
    )
    min_component_voxels: Annotated[int, Field(ge=1)] = Field(
        description="Smallest region that is reported, voxels of the network's matrix."
    )
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
        return self


@dataclass(frozen=True, kw_only=True)
class ModelPackage:
    """A package whose card is valid and whose weights are what the card says.

    Attributes
    ----------
    card : ModelCard
        The validated card.
    folder : Path
        The package's folder.
    """

    card: ModelCard
    folder: Path

    @cached_property
    def identity(self) -> ModelIdentity:
        """The model as results name it."""
        return ModelIdentity(
            name=self.card.name,
            version=self.card.version,
            weights_sha256=self.card.weights.sha256,
            task=self.card.task,
            title=self.card.title,
            licence=self.card.licence,
        )

    @cached_property
    def contract(self) -> InputContract:
        """What the model needs of a study, for routing."""
        return InputContract(
            roles=tuple(
                InputRole(
                    name=role.name,
                    required=role.required,
                    modality=self.card.input.modality,
                    any_description=role.any_description,
                    none_of=role.none_of,
                    min_images=role.min_images,
                    plane=self._plane_of(role),
                    substitute=role.substitute,
                )
                for role in self.card.input.roles
            )
        )

    def _plane_of(self, role: RoleCard) -> Plane | None:
        """Return the plane wanted of a role: others are resampled onto the reference's slices."""
        is_bound = self.card.input.plane == "axial" and role is self.card.input.reference
        return Plane.AXIAL if is_bound else None

    def build(self) -> torch.nn.Module:
        """Build the network with its weights, float32, on the CPU, in evaluation mode.

        Returns
        -------
        torch.nn.Module
            (N, roles, matrix, matrix) prepared slices to (N, labels, matrix, matrix) logits.

        Raises
        ------
        ModelPackageError
            If the network is unknown, its arguments or the weights do not fit, or the weights changed on
            disk.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load

        builtin = self.card.network.builtin
        if builtin not in BUILTIN_NETWORKS:
            known = ", ".join(sorted(BUILTIN_NETWORKS))
            raise ModelPackageError(
                f"{self._where}: network.builtin {builtin!r} is unknown; use one of {known}."
            )
        try:
            network = BUILTIN_NETWORKS[builtin](self.card.network.arguments)
        except (TypeError, ValueError) as exc:
            raise ModelPackageError(f"{self._where}: network.arguments do not fit {builtin}: {exc}") from exc
        try:
            stored = load(_read_verified(self.folder, self.card.weights))
            network.load_state_dict({name: _as_float32(value) for name, value in stored.items()}, strict=True)
        except (SafetensorError, RuntimeError) as exc:
            raise ModelPackageError(
                f"{self._where}: the weights do not fit the network; export both again from one training run."
            ) from exc
        network.eval()
        for parameter in network.parameters():
            parameter.requires_grad = False
        if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
            raise ModelPackageError(f"{self._where}: the weights are not finite; export them again.")
        return network

    @property
    def _where(self) -> str:
        return f"{self.card.name}/{self.card.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPackage:
    """A folder that looks like a package and does not load.

    Attributes
    ----------
    name, version : str
        Names of its folders.
    reason : str
        Why it does not load, and what to do.
    """

    name: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All packages of a models folder.

    Attributes
    ----------
    packages : tuple of ModelPackage
        Loadable packages, by name, then oldest version first.
    broken : tuple of BrokenPackage
        The others, each with its reason.
    """

    packages: tuple[ModelPackage, ...] = ()
    broken: tuple[BrokenPackage, ...] = ()

    @property
    def newest(self) -> Mapping[str, ModelPackage]:
        """The newest loadable version of each model, by name."""
        return MappingProxyType({package.card.name: package for package in self.packages})

    def package(self, name: str, version: str | None = None) -> ModelPackage:
        """Return one package, the newest version unless one is asked for.

        Raises
        ------
        ModelPackageError
            If there is none, with the reason if it is broken.
        """
        matching = [p for p in self.packages if p.card.name == name and version in {None, p.card.version}]
        if matching:
            return matching[-1]
        reasons = [b.reason for b in self.broken if b.name == name and version in {None, b.version}]
        wanted = name if version is None else f"{name}/{version}"
        detail = reasons[-1] if reasons else "install it in the models folder."
        raise ModelPackageError(f"No usable model package {wanted}: {detail}")


def load_package(folder: Path) -> ModelPackage:
    """Load one package: card, then digest of the weights.

    Parameters
    ----------
    folder : Path
        ``<models>/<name>/<version>``.

    Returns
    -------
    ModelPackage
        The verified package; weights are not built yet.

    Raises
    ------
    ModelPackageError
        If the card is missing or invalid, does not match the folder, or the weights differ from their digest.
    """
    where = f"{folder.parent.name}/{folder.name}"
    try:
        text = (folder / CARD_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ModelPackageError(
            f"{where}: {CARD_NAME} is missing or unreadable; put the card there."
        ) from exc
    try:
        card = ModelCard.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as exc:
        raise ModelPackageError(f"{where}: {CARD_NAME} is not YAML; correct it.") from exc
    except ValidationError as exc:
        raise ModelPackageError(f"{where}: correct {CARD_NAME}: {_summarise(exc)}") from exc
    if (card.name, card.version) != (folder.parent.name, folder.name):
        raise ModelPackageError(
            f"{where}: the card says {card.name}/{card.version}; rename the folders or correct the card."
        )
    _read_verified(folder, card.weights)
    return ModelPackage(card=card, folder=folder)


def discover(models_dir: Path) -> Catalogue:
    """List every package under a models folder; broken ones are listed with their reason.

    Parameters
    ----------
    models_dir : Path
        Folder of ``<name>/<version>`` folders; it may be missing, which is an empty catalogue.
    """
    packages: list[ModelPackage] = []
    broken: list[BrokenPackage] = []
    for folder in sorted(models_dir.glob("*/*/")):
        is_hidden = folder.name.startswith(".") or folder.parent.name.startswith(".")
        if is_hidden or not any(folder.iterdir()):
            continue
        try:
            packages.append(load_package(folder))
        except ModelPackageError as exc:
            broken.append(BrokenPackage(name=folder.parent.name, version=folder.name, reason=str(exc)))
    packages.sort(key=lambda package: (package.card.name, _version_key(package.card.version)))
    return Catalogue(packages=tuple(packages), broken=tuple(broken))


def card_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of the card, for editors and documentation."""
    return ModelCard.model_json_schema()


def _attention_res_unet(arguments: Mapping[str, JsonValue]) -> torch.nn.Module:
    from inference.networks.attention_res_unet import AttentionResUNet

    return AttentionResUNet(**arguments)  # type: ignore[arg-type]  # the constructor checks


BUILTIN_NETWORKS: Final[Mapping[str, Callable[[Mapping[str, JsonValue]], torch.nn.Module]]] = (
    MappingProxyType({"attention_res_unet": _attention_res_unet})
)
"""Networks that a card may name."""


def _as_float32(value: torch.Tensor) -> torch.Tensor:
    """Widen stored floating-point weights; counters keep their type."""
    return value.float() if value.is_floating_point() else value


def _read_verified(folder: Path, weights: WeightsCard) -> bytes:
    """Read the weights once and return exactly the bytes whose digest was checked."""
    where = f"{folder.parent.name}/{folder.name}"
    try:
        content = (folder / weights.file).read_bytes()
    except OSError as exc:
        raise ModelPackageError(
            f"{where}: {weights.file} is missing or unreadable; put the weights there."
        ) from exc
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise ModelPackageError(
            f"{where}: {weights.file} is not the file that the card describes (SHA-256 differs); install the "
            "package "
            "again from its source."
        )
    return content


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.split(r"\.", version))


def _summarise(error: ValidationError) -> str:
    """Return one line a problem: where in the card, and what is wrong."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'card'}: {problem['msg']}"
        for problem in error.errors()
    )
