import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.packages import discover
from reporting.language.adapters import CARD, AdapterError, find_adapter, load_adapter_card, pack_adapter
from reporting.language.digests import digest_file

FIELDS = {
    "name": "report-wording-lora",
    "version": "1.0.0",
    "title": "Wording of reports",
    "base_model": "SmolLM2-135M-Instruct",
    "licence": "Apache-2.0",
    "intended_use": "Words drafts.",
    "limits": ("Small.",),
    "trained_on": ("the report grammar, Apache-2.0",),
}


MODELS = Path(__file__).resolve().parents[3] / "models"
SHIPPED = sorted(path.parent for path in MODELS.glob(f"*/*/{CARD}"))


@pytest.fixture
def trained(tmp_path):
    folder = tmp_path / "trained"
    folder.mkdir()
    save_file({"layer.lora_A.weight": torch.full((2, 3), 0.5)}, folder / "adapter_model.safetensors")
    config = {"r": 2, "lora_alpha": 4, "base_model_name_or_path": "/somebody/elses/folder"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_a_packed_adapter_is_float16_and_names_no_folder(trained, tmp_path):
    out = tmp_path / "report-wording-lora" / "1.0.0"
    card = pack_adapter(trained, out, FIELDS)
    assert load_adapter_card(out) == card
    assert load_file(out / "adapter_model.safetensors")["layer.lora_A.weight"].dtype is torch.float16
    assert "folder" not in (out / "adapter_config.json").read_text()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_that_was_changed_is_not_loaded(trained, tmp_path, name):
    out = tmp_path / "packed"
    pack_adapter(trained, out, FIELDS)
    with (out / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(AdapterError, match="not the file"):
        load_adapter_card(out)


def test_an_adapter_of_the_sites_own_needs_no_card(trained):
    assert load_adapter_card(trained) is None


def test_a_folder_without_weights_or_with_a_bad_card_is_refused(trained, tmp_path):
    with pytest.raises(AdapterError, match="lacks"):
        load_adapter_card(tmp_path)
    (trained / CARD).write_text("name: [")
    with pytest.raises(AdapterError, match="not valid"):
        load_adapter_card(trained)


def test_weights_that_float16_cannot_hold_are_refused(trained, tmp_path):
    save_file({"layer.lora_A.weight": torch.full((2, 3), 1e6)}, trained / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="too large"):
        pack_adapter(trained, tmp_path / "packed", FIELDS)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_an_adapter_that_ships_is_what_its_card_says(folder):
    card = load_adapter_card(folder)
    assert card is not None
    assert (card.name, card.version) == (folder.parent.name, folder.name)
    assert (folder / "adapter_model.safetensors").stat().st_size < 8_000_000
    assert "/" not in json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]


def test_adapters_ship():
    assert SHIPPED


def test_the_newest_adapter_of_a_model_is_found_among_packages_that_pass_it_over(trained, tmp_path):
    base, models = tmp_path / "base.gguf", tmp_path / "models"
    base.write_bytes(b"weights")
    made_for = {"base_sha256": digest_file(base)}
    for version in ("1.9.0", "1.10.0"):
        pack_adapter(trained, models / "wording" / version, FIELDS | made_for | {"version": version})
    pack_adapter(trained, models / "other" / "2.0.0", FIELDS | {"base_sha256": "0" * 64, "version": "2.0.0"})
    assert find_adapter(models, base) == models / "wording" / "1.10.0"
    assert discover(models).packages == discover(models).broken == ()


def test_there_may_be_no_adapter(tmp_path):
    assert find_adapter(tmp_path / "none", tmp_path / "no.gguf") is None
