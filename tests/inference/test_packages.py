from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from random_model_package import NAME, VERSION, write_random_package

from dicom_node.routing import InputContract, InputRole
from inference.cards import card_schema
from inference.packages import ModelPackageError, discover, load_package

SHIPPED = Path(__file__).resolve().parents[2] / "models"


def edit_card(folder: Path, **changes) -> None:
    card = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
    (folder / "model.yaml").write_text(yaml.safe_dump(card | changes), encoding="utf-8")


def test_a_package_names_its_model_exactly(tmp_path):
    package = load_package(write_random_package(tmp_path))
    assert package.identity.name == NAME
    assert package.identity.version == VERSION
    assert package.identity.weights_sha256 == package.card.weights.sha256


def test_the_contract_is_what_routing_reads(tmp_path):
    contract = load_package(write_random_package(tmp_path)).contract
    assert isinstance(contract, InputContract)
    assert contract.roles[1] == InputRole(
        name="flair", required=True, modalities=("MR",), any_description=("*flair*",), min_images=3
    )
    assert contract.roles[0].substitute == "flair"


def test_the_network_has_the_stored_weights_and_is_ready_to_run(tmp_path):
    package = load_package(write_random_package(tmp_path))
    network = package.build()
    assert not network.training
    assert all(value.dtype != torch.float16 for value in network.state_dict().values())
    torch.manual_seed(0)
    same = package.build()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(network(x), same(x))


def test_one_changed_byte_of_the_weights_is_refused(tmp_path):
    folder = write_random_package(tmp_path)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelPackageError, match="SHA-256 differs"):
        load_package(folder)


def test_weights_that_change_after_loading_are_refused_when_built(tmp_path):
    package = load_package(write_random_package(tmp_path))
    (package.folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelPackageError, match="SHA-256 differs"):
        package.build()


BROKEN_CARDS = {
    "unknown field": ({"colour": "red"}, "colour: Extra inputs"),
    "threshold of one": ({"threshold": 1.0}, "threshold"),
    "pickled weights": (
        {"weights": {"files": [{"file": "model.pkl", "sha256": "0" * 64}], "dtype": "float16"}},
        "weights.files.0.file",
    ),
    "weights elsewhere": (
        {"weights": {"files": [{"file": "../model.safetensors", "sha256": "0" * 64}], "dtype": "float16"}},
        "weights.files.0.file",
    ),
    "no required role": (
        {"input": {"modality": "MR", "matrix": 256, "roles": [{"name": "flair", "substitute": "flair"}]}},
        "must be required",
    ),
    "optional role without substitute": (
        {
            "input": {
                "modality": "MR",
                "matrix": 256,
                "roles": [{"name": "flair", "required": True}, {"name": "pre"}],
            }
        },
        "needs a substitute",
    ),
    "labels from zero": (
        {"labels": [{"value": 2, "name": "a", "concept": "neoplasm", "site": "brain"}]},
        "number the values",
    ),
    "another name": ({"name": "somebody-else"}, "rename the folders"),
}


@pytest.mark.parametrize("case", BROKEN_CARDS)
def test_a_card_with_a_mistake_is_refused_and_the_mistake_named(tmp_path, case):
    changes, message = BROKEN_CARDS[case]
    folder = write_random_package(tmp_path)
    edit_card(folder, **changes)
    with pytest.raises(ModelPackageError) as caught:
        load_package(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "network",
    [
        {"builtin": "os.system", "arguments": {}},
        {"builtin": "attention_res_unet", "arguments": {"depth": 3}},
        {"builtin": "attention_res_unet", "arguments": {"channels": [4]}},
        {"builtin": "attention_res_unet", "arguments": {"channels": [8, 8]}},
    ],
)
def test_a_network_that_does_not_fit_its_card_is_refused(tmp_path, network):
    package = load_package(write_random_package(tmp_path, network=network))
    with pytest.raises(ModelPackageError, match=NAME):
        package.build()


@pytest.mark.parametrize("content", [None, "a: [", "- list", "name: 3"])
def test_a_folder_without_a_usable_card_is_refused(tmp_path, content):
    folder = write_random_package(tmp_path)
    (folder / "model.yaml").unlink()
    if content is not None:
        (folder / "model.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ModelPackageError, match=r"model\.yaml"):
        load_package(folder)


def test_discover_lists_every_version_and_keeps_broken_ones_apart(tmp_path):
    write_random_package(tmp_path, version="0.9.0")
    write_random_package(tmp_path, version="0.10.0")
    broken = write_random_package(tmp_path, version="1.0.0")
    (broken / "model.safetensors").write_bytes(b"broken")
    catalogue = discover(tmp_path)
    assert [p.card.version for p in catalogue.packages] == ["0.9.0", "0.10.0"]
    assert catalogue.newest[NAME].card.version == "0.10.0"
    assert catalogue.package(NAME, "0.9.0").card.version == "0.9.0"
    assert [(b.version, "SHA-256" in b.reason) for b in catalogue.broken] == [("1.0.0", True)]
    with pytest.raises(ModelPackageError, match="SHA-256"):
        catalogue.package(NAME, "1.0.0")
    with pytest.raises(ModelPackageError, match="install it"):
        catalogue.package("nobody")


def test_a_missing_models_folder_is_an_empty_catalogue(tmp_path):
    assert discover(tmp_path / "none").packages == ()


def test_the_schema_of_the_card_is_json_and_closed():
    schema = json.loads(json.dumps(card_schema()))
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) >= {"name", "version", "weights", "intended_use", "limits"}


def test_every_shipped_package_loads_and_builds():
    catalogue = discover(SHIPPED)
    assert not catalogue.broken
    for package in catalogue.packages:
        package.build()
