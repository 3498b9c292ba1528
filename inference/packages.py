"""Adapter: reads model packages, folders ``models/<name>/<version>/`` with a card and weights.

A package without a card, or whose files have another SHA-256 than the card says, does not load. Built-in
networks take safetensors only, which cannot run code; `foreign` and `bundles` say what holds for the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import yaml
from pydantic import JsonValue, ValidationError

from dicom_node.errors import PermanentError
from dicom_node.planes import Plane
from dicom_node.routing import InputContract, InputRole
from inference.cards import CARD_NAME, FileCard, ModelCard, RoleCard
from inference.findings import ModelIdentity

if TYPE_CHECKING:  # these import torch, which a list of packages does not need
    import torch

    from inference.bundles import Bundle
    from inference.volume_preparation import VolumeRecipe

#: Card of a language model's adapter: such a folder is no imaging model.
_ADAPTER_CARD = "adapter.yaml"


class ModelPackageError(PermanentError):
    """A model package is unusable; the message names the file and what to do about it."""


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
                    modalities=role.modality or self.card.input.modality,
                    any_description=role.any_description,
                    none_of=role.none_of,
                    min_images=role.min_images,
                    plane=self._plane_of(role),
                    substitute=role.substitute,
                )
                for role in self.card.input.roles
            ),
            is_any_role_enough=self.card.input.is_any_role_enough,
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

        try:
            network = _BUILDERS[self.card.network.format](self)
        except ModelPackageError:
            raise
        except PermanentError as exc:
            raise ModelPackageError(f"{self._where}: {exc}") from exc
        network.eval()
        for parameter in network.parameters():
            parameter.requires_grad = False
        if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
            raise ModelPackageError(f"{self._where}: the weights are not finite; export them again.")
        return network

    @cached_property
    def volume_recipe(self) -> VolumeRecipe:
        """How a 3-D network takes volumes: from the bundle where there is one, else from the card.

        Raises
        ------
        ModelPackageError
            If card and bundle differ, or one of them states what is not known here.
        """
        from inference.volume_preparation import VolumeGridError, recipe_of

        try:
            if self.card.network.format != "monai_bundle":
                return recipe_of(self.card.input, self.card.options)
            recipe = self._bundle.recipe
            return replace(
                recipe,
                orientation=recipe.orientation or self.card.input.orientation,
                spacing_mm=recipe.spacing_mm or self.card.input.spacing_mm,
            )
        except VolumeGridError as exc:
            raise ModelPackageError(f"{self._where}: {exc}") from exc

    @cached_property
    def _bundle(self) -> Bundle:
        """The configuration of the MONAI bundle, checked against the card."""
        from inference import bundles

        card = self.card
        try:
            bundle = bundles.read_bundle(
                self._bundle_file(bundles.METADATA),
                self._bundle_file(bundles.INFERENCE),
                is_scripted=self._bundle_path(bundles.STATE_DICT) not in self._listed,
                default_window=card.input.matrix,
            )
            bundles.check_against_card(
                bundle,
                orientation=card.input.orientation,
                spacing_mm=card.input.spacing_mm,
                side=card.input.matrix,
                channels=card.input.channels,
                labels=len(card.labels),
                activation=card.network.activation,
            )
        except bundles.BundleError as exc:
            raise ModelPackageError(f"{self._where}: {exc}") from exc
        return bundle

    def _bundle_path(self, name: str) -> str:
        return f"{self.card.network.folder}/{name}"

    def _bundle_file(self, name: str) -> bytes:
        """Return a file of the bundle; it must be on the card, so that its digest is known."""
        path = self._bundle_path(name)
        if path not in self._listed:
            raise ModelPackageError(
                f"{self._where}: weights.files does not list {path}: add it with its SHA-256."
            )
        return read_verified(self.folder, self._listed[path])

    @cached_property
    def _listed(self) -> Mapping[str, FileCard]:
        return MappingProxyType({file.file: file for file in self.card.weights.files})

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
    for file in card.weights.files:
        read_verified(folder, file)
    return ModelPackage(card=card, folder=folder)


def discover(models_dir: Path) -> Catalogue:
    """List every package under a models folder; broken ones are listed with their reason.

    Parameters
    ----------
    models_dir : Path
        Folder of ``<name>/<version>`` folders; it may be missing, which is an empty catalogue. Adapters of
        language models lie there too and are passed over (``reporting/language/adapters.py``).
    """
    packages: list[ModelPackage] = []
    broken: list[BrokenPackage] = []
    for folder in sorted(models_dir.glob("*/*/")):
        is_hidden = folder.name.startswith(".") or folder.parent.name.startswith(".")
        if is_hidden or not any(folder.iterdir()) or (folder / _ADAPTER_CARD).is_file():
            continue
        try:
            packages.append(load_package(folder))
        except ModelPackageError as exc:
            broken.append(BrokenPackage(name=folder.parent.name, version=folder.name, reason=str(exc)))
    packages.sort(key=lambda package: (package.card.name, _version_key(package.card.version)))
    return Catalogue(packages=tuple(packages), broken=tuple(broken))


def _attention_res_unet(arguments: Mapping[str, JsonValue]) -> torch.nn.Module:
    from inference.networks.attention_res_unet import AttentionResUNet

    return AttentionResUNet(**arguments)  # type: ignore[arg-type]  # the constructor checks


def _encoder_attention_unet(arguments: Mapping[str, JsonValue]) -> torch.nn.Module:
    from inference.networks.encoder_attention_unet import EncoderAttentionUNet

    return EncoderAttentionUNet(**arguments)  # type: ignore[arg-type]  # the constructor checks


def _resnet50_classifier(arguments: Mapping[str, JsonValue]) -> torch.nn.Module:
    from inference.networks.classifiers import ResNet50Classifier

    return ResNet50Classifier(**arguments)  # type: ignore[arg-type]  # the constructor checks


def _encoder_classifier(arguments: Mapping[str, JsonValue]) -> torch.nn.Module:
    from inference.networks.classifiers import EncoderClassifier

    return EncoderClassifier(**arguments)  # type: ignore[arg-type]  # the constructor checks


def _dual_encoder(arguments: Mapping[str, JsonValue]) -> torch.nn.Module:
    from inference.networks.dual_encoder import DualEncoder

    return DualEncoder(**arguments)  # type: ignore[arg-type]  # the constructor checks


def _faster_rcnn(arguments: Mapping[str, JsonValue]) -> torch.nn.Module:
    from inference.networks.faster_rcnn import RadiographDetector

    return RadiographDetector(**arguments)  # type: ignore[arg-type]  # the constructor checks


def _r2gen_cmn(arguments: Mapping[str, JsonValue]) -> torch.nn.Module:
    from inference.networks.r2gen_cmn import R2GenCMN

    return R2GenCMN(**arguments)  # type: ignore[arg-type]  # the constructor checks


BUILTIN_NETWORKS: Final[Mapping[str, Callable[[Mapping[str, JsonValue]], torch.nn.Module]]] = (
    MappingProxyType(
        {
            "dual_encoder": _dual_encoder,
            "attention_res_unet": _attention_res_unet,
            "encoder_attention_unet": _encoder_attention_unet,
            "encoder_classifier": _encoder_classifier,
            "faster_rcnn": _faster_rcnn,
            "r2gen_cmn": _r2gen_cmn,
            "resnet50_classifier": _resnet50_classifier,
        }
    )
)
"""Networks that a card may name."""


def _build_builtin(package: ModelPackage) -> torch.nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load

    where, card = f"{package.card.name}/{package.card.version}", package.card
    builtin = card.network.builtin or ""
    if builtin not in BUILTIN_NETWORKS:
        known = ", ".join(sorted(BUILTIN_NETWORKS))
        raise ModelPackageError(f"{where}: network.builtin {builtin!r} is unknown; use one of {known}.")
    try:
        network = BUILTIN_NETWORKS[builtin](card.network.arguments)
    except (TypeError, ValueError) as exc:
        raise ModelPackageError(f"{where}: network.arguments do not fit {builtin}: {exc}") from exc
    try:
        stored: dict[str, torch.Tensor] = {}
        for file in card.weights.files:
            stored |= load(read_verified(package.folder, file))
        network.load_state_dict({name: _as_float32(value) for name, value in stored.items()}, strict=True)
    except (SafetensorError, RuntimeError) as exc:
        raise ModelPackageError(
            f"{where}: the weights do not fit the network; export both again from one training run."
        ) from exc
    return network


def _build_torchscript(package: ModelPackage) -> torch.nn.Module:
    from inference.foreign import read_torchscript

    return read_torchscript(read_verified(package.folder, package.card.weights.files[0]))


def _build_onnx(package: ModelPackage) -> torch.nn.Module:
    from inference.foreign import OnnxNetwork

    return OnnxNetwork(read_verified(package.folder, package.card.weights.files[0]))


def _build_bundle(package: ModelPackage) -> torch.nn.Module:
    from inference import bundles
    from inference.foreign import read_torchscript

    bundle = package._bundle  # noqa: SLF001 - a part of the package that lives beside its class
    if bundle.target is None:
        return read_torchscript(package._bundle_file(bundles.TORCHSCRIPT))  # noqa: SLF001 - likewise
    return bundles.build_network(bundle, package._bundle_file(bundles.STATE_DICT))  # noqa: SLF001 - likewise


_BUILDERS: Final[Mapping[str, Callable[[ModelPackage], torch.nn.Module]]] = MappingProxyType(
    {
        "builtin": _build_builtin,
        "torchscript": _build_torchscript,
        "onnx": _build_onnx,
        "monai_bundle": _build_bundle,
    }
)
"""What builds the network of each format."""


def _as_float32(value: torch.Tensor) -> torch.Tensor:
    """Widen stored floating-point weights; counters keep their type."""
    return value.float() if value.is_floating_point() else value


def read_verified(folder: Path, file: FileCard) -> bytes:
    """Read a file of a package once and return exactly the bytes whose digest was checked."""
    where = f"{folder.parent.name}/{folder.name}"
    try:
        content = (folder / file.file).read_bytes()
    except OSError as exc:
        raise ModelPackageError(
            f"{where}: {file.file} is missing or unreadable; put the weights there."
        ) from exc
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise ModelPackageError(
            f"{where}: {file.file} is not the file that the card describes (SHA-256 differs); install the "
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
