"""Pure. A MONAI bundle as the Model Zoo ships it, read as data: nothing in its configuration is evaluated.

MONAI's own loader imports every ``_target_`` and evaluates every ``$`` expression of a configuration, so that
a bundle is a program (GHSA-873f-pvrv-4x83). Here a configuration is JSON and nothing else. The network is
built when it is one of `NETWORKS`, preprocessing is translated to our own when it is known here, and
everything else is refused by its name. The bundle's scripts, savers and post-processing never run.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pydantic import JsonValue

from dicom_node.errors import PermanentError
from inference.volume_preparation import (
    Blend,
    IntensityStep,
    NormalizeIntensity,
    ScaleIntensityRange,
    VolumeRecipe,
)

if TYPE_CHECKING:
    import torch

METADATA: Final = "configs/metadata.json"
INFERENCE: Final = "configs/inference.json"
STATE_DICT: Final = "models/model.pt"
TORCHSCRIPT: Final = "models/model.ts"

NETWORKS: Final = frozenset(
    {
        "AttentionUnet",
        "BasicUNet",
        "DynUNet",
        "FlexibleUNet",
        "HighResNet",
        "SegResNet",
        "SegResNetDS",
        "SwinUNETR",
        "UNet",
        "UNETR",
        "VNet",
    }
)
"""Networks of ``monai.networks.nets`` that a bundle may name: they segment and take plain values."""

_NEUTRAL: Final = frozenset({"LoadImage", "EnsureChannelFirst", "EnsureType", "ToTensor"})
"""Transforms that bring a file into memory, which DICOM has done already."""

_ACTIVATIONS: Final = ("sigmoid", "softmax")
_SPACING_TOLERANCE: Final = 1e-3
"""Difference of spacings, mm, that counts as the same."""

Config: TypeAlias = Mapping[str, JsonValue]


class BundleError(PermanentError):
    """A bundle is not one that may run here; the message names what is in the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a bundle says about its network.

    Attributes
    ----------
    target : str or None
        Class in ``monai.networks.nets``; None when the bundle brings TorchScript.
    arguments : mapping
        Its constructor arguments, plain JSON.
    recipe : VolumeRecipe
        How volumes are prepared; an empty orientation and no spacing leave them to the card.
    activation : str or None
        ``sigmoid`` or ``softmax`` where the bundle's post-processing says so.
    input_channels : int or None
        Channels of the input, where the bundle says so.
    outputs : tuple of str
        Names of the output channels from ``channel_def``, background included; empty where it is missing.
    """

    target: str | None
    arguments: Config
    recipe: VolumeRecipe
    activation: str | None
    input_channels: int | None
    outputs: tuple[str, ...]


def read_bundle(metadata: bytes, inference: bytes, *, is_scripted: bool, default_window: int) -> Bundle:
    """Read the configuration of a bundle.

    Parameters
    ----------
    metadata, inference : bytes
        ``configs/metadata.json`` and ``configs/inference.json``.
    is_scripted : bool
        Whether the network comes as TorchScript, so that ``network_def`` is not needed.
    default_window : int
        Side of the window where the bundle's inferer states none, voxels.

    Returns
    -------
    Bundle
        What to build and how to prepare volumes.

    Raises
    ------
    BundleError
        If something in it may not run here, or is not understood.
    """
    described = _parse(metadata, METADATA)
    config = _parse(inference, INFERENCE)
    target, arguments = (None, {}) if is_scripted else _read_network(config)
    input_channels, outputs = _read_data_format(described)
    return Bundle(
        target=target,
        arguments=arguments,
        recipe=_read_recipe(config, default_window),
        activation=_read_activation(config),
        input_channels=input_channels,
        outputs=outputs,
    )


def build_network(bundle: Bundle, state: bytes) -> torch.nn.Module:
    """Build the network of a bundle with its weights.

    Parameters
    ----------
    bundle : Bundle
        With a ``target``.
    state : bytes
        ``models/model.pt``: a state dict, which is unpickled as tensors and plain containers only.

    Returns
    -------
    torch.nn.Module
        Float32, on the CPU.

    Raises
    ------
    BundleError
        If arguments or weights do not fit, or the file holds anything but tensors.
    """
    import torch
    from monai.networks import nets

    build: Callable[..., torch.nn.Module] = getattr(nets, bundle.target or "")
    try:
        network = build(**bundle.arguments)
    except (TypeError, ValueError, NotImplementedError) as exc:
        raise BundleError(f"{INFERENCE}: network_def does not fit {bundle.target}: {exc}") from exc
    try:
        stored = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as exc:
        raise BundleError(
            f"{STATE_DICT} holds more than tensors, or is damaged: export the network's state_dict alone."
        ) from exc
    try:
        network.load_state_dict(_state_dict(stored), strict=True)
    except (RuntimeError, AttributeError, TypeError) as exc:
        raise BundleError(f"{STATE_DICT} does not fit the network_def of {INFERENCE}.") from exc
    return network.float()


def _state_dict(stored: object) -> Mapping[str, torch.Tensor]:
    """Return the state dict, also from a checkpoint that wraps it."""
    if isinstance(stored, Mapping):
        for key in ("model", "state_dict"):
            if isinstance(stored.get(key), Mapping):
                return stored[key]  # type: ignore[no-any-return]
        return stored
    raise BundleError(f"{STATE_DICT} holds no state dict: export the network's state_dict.")


# -- the network -------------------------------------------------------------------------------


def _read_network(config: Config) -> tuple[str, Config]:
    definition = config.get("network_def")
    if not isinstance(definition, Mapping):
        raise BundleError(
            f"{INFERENCE}: network_def is missing or an expression: write the network's _target_ and "
            "arguments there, or ship models/model.ts."
        )
    if "$" in json.dumps(definition):
        raise BundleError(f"{INFERENCE}: network_def holds an expression ($): write its value.")
    arguments = {
        key: _resolve(value, config, f"network_def.{key}")
        for key, value in definition.items()
        if key not in {"_target_", "_desc_"}
    }
    target = str(definition.get("_target_", ""))
    name = target.removeprefix("monai.networks.nets.").rpartition(".")[2]
    is_ours = target in {name, f"monai.networks.nets.{name}"} or (
        target.startswith("monai.networks.nets.") and target.count(".") == 4  # noqa: PLR2004 - one module
    )
    if name not in NETWORKS or not is_ours:
        raise BundleError(
            f"{INFERENCE}: network_def names {target!r}, which is not among the networks that a bundle may "
            f"use ({', '.join(sorted(NETWORKS))}): ship models/model.ts instead."
        )
    special = sorted(key for key in arguments if key.startswith("_"))
    if special:
        raise BundleError(f"{INFERENCE}: network_def uses {special[0]}, which is not read here.")
    return name, arguments


def _resolve(value: JsonValue, config: Config, where: str, depth: int = 0) -> JsonValue:
    """Return a plain value; a reference to a plain value of the same file is followed, nothing else is."""
    if isinstance(value, str):
        if "$" in value or value.startswith("%"):
            raise BundleError(f"{INFERENCE}: {where} is the expression {value!r}: write its value.")
        if value.startswith("@"):
            name = value[1:]
            if depth or name not in config:
                raise BundleError(f"{INFERENCE}: {where} refers to {value!r}: write its value.")
            return _resolve(config[name], config, where, depth + 1)
        return value
    if isinstance(value, Mapping):
        if any(key.startswith("_") for key in value):
            raise BundleError(
                f"{INFERENCE}: {where} builds an object: only numbers, words and lists are read."
            )
        return {key: _resolve(item, config, f"{where}.{key}", depth) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_resolve(item, config, where, depth) for item in value]
    return value


# -- preparation -------------------------------------------------------------------------------


def _read_recipe(config: Config, default_window: int) -> VolumeRecipe:
    orientation, spacing = "", None
    steps: list[IntensityStep] = []
    for transform in _transforms(config, "preprocessing"):
        name = _transform_name(transform, "preprocessing")
        if name in _NEUTRAL:
            continue
        arguments = {
            key: _resolve(value, config, f"preprocessing.{name}.{key}")
            for key, value in transform.items()
            if not key.startswith("_")
            and key
            not in {"keys", "allow_missing_keys", "reader", "image_only", "mode", "ensure_channel_first"}
        }
        match name:
            case "Orientation":
                orientation = str(arguments.get("axcodes", ""))
            case "Spacing":
                spacing = _three(arguments.get("pixdim"), "preprocessing.Spacingd.pixdim")
                if not orientation and len(set(spacing)) > 1:
                    raise BundleError(
                        f"{INFERENCE}: Spacingd with unequal spacings has no Orientationd before it, so its "
                        "axes are unknown: put Orientationd first."
                    )
            case "NormalizeIntensity":
                given = _known(arguments, name, {"nonzero": bool, "channel_wise": bool})
                steps.append(
                    NormalizeIntensity(
                        nonzero=bool(given.get("nonzero")), channel_wise=bool(given.get("channel_wise"))
                    )
                )
            case "ScaleIntensityRange":
                known = {"a_min": float, "a_max": float, "b_min": float, "b_max": float, "clip": bool}
                given = _known(arguments, name, known)
                steps.append(
                    ScaleIntensityRange(
                        a_min=given["a_min"],
                        a_max=given["a_max"],
                        b_min=given.get("b_min"),
                        b_max=given.get("b_max"),
                        clip=bool(given.get("clip")),
                    )
                )
            case _:
                raise BundleError(
                    f"{INFERENCE}: preprocessing uses {name}, which has no counterpart here; orientation, "
                    "spacing, NormalizeIntensity and ScaleIntensityRange have one."
                )
    window, overlap, blend = _read_inferer(config, default_window)
    return VolumeRecipe(
        orientation=orientation,
        spacing_mm=spacing,
        steps=tuple(steps),
        window=window,
        overlap=overlap,
        blend=blend,
    )


def _read_inferer(config: Config, default_window: int) -> tuple[tuple[int, int, int], float, Blend]:
    inferer = config.get("inferer")
    target = str(inferer.get("_target_", "")) if isinstance(inferer, Mapping) else ""
    if not isinstance(inferer, Mapping) or target.rpartition(".")[2] == "SimpleInferer":
        return (default_window,) * 3, 0.0, "constant"
    if target.rpartition(".")[2] != "SlidingWindowInferer":
        raise BundleError(f"{INFERENCE}: inferer is {target!r}; only SlidingWindowInferer is read here.")
    sides = _three(_resolve(inferer.get("roi_size"), config, "inferer.roi_size"), "inferer.roi_size")
    overlap = _resolve(inferer.get("overlap", 0.25), config, "inferer.overlap")
    if isinstance(overlap, bool) or not isinstance(overlap, int | float) or not 0 <= overlap < 1:
        raise BundleError(f"{INFERENCE}: inferer.overlap must be a share from 0 to below 1.")
    blend: Blend = "gaussian" if inferer.get("mode") == "gaussian" else "constant"
    return (int(sides[0]), int(sides[1]), int(sides[2])), float(overlap), blend


def _read_activation(config: Config) -> str | None:
    """Return the activation of the bundle's post-processing; everything else in that is left alone."""
    if not isinstance(config.get("postprocessing"), Mapping):
        return None
    for transform in _transforms(config, "postprocessing"):
        if str(transform.get("_target_", "")).rpartition(".")[2] in {"Activationsd", "Activations"}:
            return next((name for name in _ACTIVATIONS if transform.get(name) is True), None)
    return None


def _transforms(config: Config, section: str) -> list[Config]:
    composed = config.get(section)
    listed = composed.get("transforms") if isinstance(composed, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(item, Mapping) for item in listed):
        raise BundleError(
            f"{INFERENCE}: {section} is missing or an expression: list its transforms in a Compose."
        )
    return [item for item in listed if isinstance(item, Mapping)]


def _transform_name(transform: Config, section: str) -> str:
    """Return the transform's name without module and dictionary suffix."""
    target = str(transform.get("_target_", ""))
    name = target.removeprefix("monai.transforms.")
    if "." in name or "$" in target or transform.get("_disabled_") not in {None, False}:
        raise BundleError(f"{INFERENCE}: {section} uses {target!r}, which is not read here.")
    return name.removesuffix("d")


def _known(arguments: Config, name: str, kinds: Mapping[str, type]) -> dict[str, float | bool]:
    """Return a transform's arguments; one that is not translated is refused."""
    values: dict[str, float | bool] = {}
    for key, value in arguments.items():
        if key not in kinds:
            raise BundleError(
                f"{INFERENCE}: preprocessing.{name}.{key} has no counterpart here: leave it out."
            )
        if value is None:
            continue
        if kinds[key] is bool:
            if not isinstance(value, bool):
                raise BundleError(f"{INFERENCE}: preprocessing.{name}.{key} must be true or false.")
            values[key] = value
        elif isinstance(value, int | float):
            values[key] = float(value)
        else:
            raise BundleError(f"{INFERENCE}: preprocessing.{name}.{key} must be a number.")
    if kinds.keys() >= {"a_min", "a_max"} > values.keys():
        raise BundleError(f"{INFERENCE}: preprocessing.{name} needs a_min and a_max.")
    return values


def _three(value: JsonValue, where: str) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3:  # noqa: PLR2004 - three axes
        raise BundleError(f"{INFERENCE}: {where} must be a list of three numbers.")
    numbers = [float(item) for item in value if isinstance(item, int | float) and item > 0]
    if len(numbers) != len(value):
        raise BundleError(f"{INFERENCE}: {where} must be a list of three positive numbers.")
    return numbers[0], numbers[1], numbers[2]


# -- metadata ----------------------------------------------------------------------------------


def _read_data_format(metadata: Config) -> tuple[int | None, tuple[str, ...]]:
    """Return input channels and output names; some bundles of the Zoo state neither."""
    image = _dig(metadata, "network_data_format", "inputs", "image")
    prediction = _dig(metadata, "network_data_format", "outputs", "pred")
    channels = image.get("num_channels")
    channel_def = prediction.get("channel_def")
    outputs: tuple[str, ...] = ()
    if isinstance(channel_def, Mapping):
        if sorted(channel_def) != sorted(str(number) for number in range(len(channel_def))):
            raise BundleError(f"{METADATA}: number the channels of outputs.pred.channel_def from 0.")
        outputs = tuple(str(channel_def[str(number)]) for number in range(len(channel_def)))
    return (channels if isinstance(channels, int) else None), outputs


def _dig(config: Config, *path: str) -> Config:
    found: JsonValue = dict(config)
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _parse(content: bytes, name: str) -> Config:
    try:
        parsed = json.loads(content)
    except ValueError as exc:
        raise BundleError(f"{name} is not JSON: correct it.") from exc
    if not isinstance(parsed, dict):
        raise BundleError(f"{name} is not a JSON object: correct it.")
    return parsed


def check_against_card(
    bundle: Bundle,
    *,
    orientation: str,
    spacing_mm: tuple[float, float, float] | None,
    side: int,
    channels: int,
    labels: int,
    activation: str,
) -> None:
    """Refuse a bundle that says other things than the card beside it.

    Raises
    ------
    BundleError
        Naming the first difference.
    """
    recipe = bundle.recipe
    wanted = recipe.spacing_mm
    is_spaced = wanted is None or (
        spacing_mm is not None
        and all(abs(a - b) <= _SPACING_TOLERANCE for a, b in zip(wanted, spacing_mm, strict=True))
    )
    named = [name for name in bundle.outputs if name.strip().lower() not in {"background", "bg"}]
    differences = (
        (recipe.orientation not in {"", orientation}, "input.orientation", orientation, recipe.orientation),
        (not is_spaced, "input.spacing_mm", spacing_mm, wanted),
        (max(recipe.window) != side, "input.matrix", side, f"{max(recipe.window)} (largest of roi_size)"),
        (bundle.input_channels not in {None, channels}, "input.roles", channels, bundle.input_channels),
        (bool(named) and len(named) != labels, "labels", labels, ", ".join(named)),
        (bundle.activation not in {None, activation}, "network.activation", activation, bundle.activation),
    )
    for differs, field, card, own in differences:
        if differs:
            raise BundleError(f"The card says {field} {card}, the bundle {own}: correct the card.")
