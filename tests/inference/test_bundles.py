from __future__ import annotations

import io
import json
import os
import pickle

import numpy as np
import pytest
import torch
from foreign_packages import (
    BUNDLE_NETWORK,
    SIDE,
    as_torchscript,
    bundle_files,
    inference_config,
    metadata,
    small_network,
    write_bundle_package,
)

from inference.bundles import BundleError, read_bundle
from inference.packages import ModelPackageError, load_package
from inference.volume_preparation import NormalizeIntensity, ScaleIntensityRange


def read(inference=None, described=None, *, is_scripted=False):
    return read_bundle(
        json.dumps(metadata() if described is None else described).encode(),
        json.dumps(inference or inference_config()).encode(),
        is_scripted=is_scripted,
        default_window=SIDE,
    )


def transforms(*listed):
    return {"preprocessing": {"_target_": "Compose", "transforms": list(listed)}}


def test_a_bundle_as_the_zoo_ships_it_builds_the_network_of_its_state_dict(tmp_path):
    package = load_package(write_bundle_package(tmp_path))
    x = torch.randn(1, 1, SIDE, SIDE, SIDE)
    assert torch.equal(package.build()(x), small_network()(x))
    assert package.volume_recipe.steps == (NormalizeIntensity(nonzero=True, channel_wise=True),)
    assert package.volume_recipe.overlap == 0.5


def test_preprocessing_is_translated_in_its_order():
    scale = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164, "b_min": 0,
             "b_max": 1, "clip": True}  # fmt: skip
    bundle = read(
        inference_config(
            **transforms(
                {"_target_": "monai.transforms.LoadImaged", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "LPS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0]},
                scale,
            )
        )
    )
    assert bundle.recipe.orientation == "LPS"
    assert bundle.recipe.spacing_mm == (1.5, 1.5, 2.0)
    assert bundle.recipe.steps == (
        ScaleIntensityRange(a_min=-57.0, a_max=164.0, b_min=0.0, b_max=1.0, clip=True),
    )
    assert bundle.activation == "softmax"
    assert bundle.outputs == ("background", "white matter", "grey matter")


def test_metadata_without_data_format_is_tolerated():
    bundle = read(described={"version": "1.0.0", "autoencoder_data_format": {}})
    assert bundle.outputs == ()
    assert bundle.input_channels is None


def test_a_reference_to_a_plain_value_is_followed_and_nothing_is_evaluated():
    definition = BUNDLE_NETWORK | {"out_channels": "@classes"}
    assert read(inference_config(network_def=definition, classes=3)).arguments["out_channels"] == 3
    with pytest.raises(BundleError, match="expression"):
        read(inference_config(network_def=definition, classes="$1 + 2"))


REFUSED = {
    "another class": ({"network_def": {"_target_": "os.system", "command": "true"}}, "os.system"),
    "a class of the bundle's scripts": (
        {"network_def": BUNDLE_NETWORK | {"_target_": "scripts.net.UNet"}},
        "scripts.net.UNet",
    ),
    "an expression in an argument": (
        {"network_def": BUNDLE_NETWORK | {"strides": ["$__import__('os').getpid()"]}},
        "expression",
    ),
    "an object in an argument": (
        {"network_def": BUNDLE_NETWORK | {"act": {"_target_": "torch.nn.ReLU"}}},
        "builds an object",
    ),
    "a call mode": ({"network_def": BUNDLE_NETWORK | {"_mode_": "debug"}}, "_mode_"),
    "a network that is an expression": ({"network_def": "$torch.nn.Identity()"}, "network_def is missing"),
    "an unknown transform": (
        transforms({"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}),
        "CropForeground",
    ),
    "a lambda": (transforms({"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}), "Lambda"),
    "a transform of the bundle": (transforms({"_target_": "scripts.Load"}), "scripts.Load"),
    "an argument that is not translated": (
        transforms({"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 3}),
        "subtrahend",
    ),
    "unequal spacing without axes": (
        transforms({"_target_": "Spacingd", "keys": "image", "pixdim": [1, 1, 2]}),
        "Orientationd",
    ),
    "another inferer": ({"inferer": {"_target_": "scripts.detection_inferer.Inferer"}}, "inferer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_run_is_refused_by_its_name(case):
    changes, named = REFUSED[case]
    with pytest.raises(BundleError) as caught:
        read(inference_config(**changes))
    assert named in str(caught.value)


class Payload:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch '{self.trace}'",)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path):
    files = bundle_files()
    files["bundle/models/model.pt"] = pickle.dumps(Payload(tmp_path / "trace"), protocol=2)
    with pytest.raises(ModelPackageError, match="more than tensors"):
        load_package(write_bundle_package(tmp_path, files)).build()
    assert not (tmp_path / "trace").exists()


def test_weights_of_another_network_are_refused(tmp_path):
    state = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2).state_dict(), state)
    files = bundle_files() | {"bundle/models/model.pt": state.getvalue()}
    with pytest.raises(ModelPackageError, match="does not fit the network_def"):
        load_package(write_bundle_package(tmp_path, files)).build()


def test_a_scripted_bundle_needs_no_network_definition(tmp_path):
    files = bundle_files(inference_config(network_def="$scripts.net()"))
    del files["bundle/models/model.pt"]
    files["bundle/models/model.ts"] = as_torchscript(small_network())
    package = load_package(write_bundle_package(tmp_path, files))
    x = torch.randn(1, 1, SIDE, SIDE, SIDE)
    np.testing.assert_allclose(package.build()(x), small_network()(x), atol=1e-6)


def test_a_configuration_without_a_digest_on_the_card_is_refused(tmp_path):
    files = bundle_files()
    folder = write_bundle_package(tmp_path, {k: v for k, v in files.items() if "inference" not in k})
    (folder / "bundle/configs/inference.json").write_bytes(files["bundle/configs/inference.json"])
    with pytest.raises(ModelPackageError, match=r"does not list bundle/configs/inference\.json"):
        load_package(folder).build()


DIFFERENCES = {
    "spacing": (inference_config(**transforms({"_target_": "Spacingd", "pixdim": [2, 2, 2]})), "spacing_mm"),
    "orientation": (
        inference_config(**transforms({"_target_": "Orientationd", "axcodes": "LPS"})),
        "orientation",
    ),
    "window": (
        inference_config(inferer={"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32]}),
        "input.matrix",
    ),
    "activation": (
        inference_config(
            postprocessing={
                "_target_": "Compose",
                "transforms": [{"_target_": "Activationsd", "sigmoid": True}],
            }
        ),
        "network.activation",
    ),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_card_that_contradicts_its_bundle_is_refused(tmp_path, case):
    config, field = DIFFERENCES[case]
    package = load_package(write_bundle_package(tmp_path, bundle_files(config)))
    with pytest.raises(ModelPackageError, match=field):
        package.build()


def test_labels_that_contradict_the_channel_definition_are_refused(tmp_path):
    described = metadata()
    described["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "background", "1": "spleen"}
    package = load_package(write_bundle_package(tmp_path, bundle_files(described=described)))
    with pytest.raises(ModelPackageError, match="labels"):
        package.build()
