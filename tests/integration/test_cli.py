"""The command line, as people type it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from integration_rig import RULES, small_study, write_files
from random_model_package import NAME, write_random_package


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_random_package(tmp_path / "models")
    (tmp_path / "rules.yaml").write_text(RULES)
    path = tmp_path / "preread.yaml"
    settings = {
        "data_dir": str(tmp_path / "data"),
        "models_dir": str(tmp_path / "models"),
        "rules_file": str(tmp_path / "rules.yaml"),
        "dicom": {"port": 0},
        "http": {"port": 0},
        "store": {"minimum_free_mb": 0, "minimum_free_fraction": 0},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def preread(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "integration.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_doctor_finds_a_healthy_site_well_and_names_what_is_not(config: Path, tmp_path: Path) -> None:
    healthy = preread("doctor", "--config", config)
    assert healthy.returncode == 0, healthy.stdout
    assert "FAIL" not in healthy.stdout
    broken = yaml.safe_load(config.read_text())
    broken["destinations"] = [{"name": "pacs", "type": "stow", "url": "http://127.0.0.1:9/dicom-web"}]
    (tmp_path / "models" / NAME / "0.1.0" / "model.safetensors").write_bytes(b"not the weights of the card")
    config.write_text(yaml.safe_dump(broken))
    sick = preread("doctor", "--config", config)
    assert sick.returncode == 1
    failed = [line for line in sick.stdout.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 2
    assert any("destination pacs" in line for line in failed)


def test_models_are_listed_and_shown(config: Path) -> None:
    assert "0.1.0" in preread("models", "list", "--config", config).stdout
    card = json.loads(preread("models", "show", NAME, "--json", "--config", config).stdout)
    assert card["version"] == "0.1.0"


def test_a_wrong_rule_is_named(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - name: brain\n    when: {tags: {Manufacturor: '*'}}\n    models: []\n")
    answer = preread("rules", "check", rules)
    assert answer.returncode == 1
    assert "brain" in answer.stderr
    assert "Manufacturer" in answer.stderr, "the nearest valid keyword is offered"
    assert "Traceback" not in answer.stderr


def test_a_wrong_setting_is_named_without_a_traceback(config: Path) -> None:
    config.write_text("dicom: {prot: 1}\n")
    answer = preread("studies", "--config", config)
    assert answer.returncode == 1
    assert "dicom.prot" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_sending_to_nobody_says_so(tmp_path: Path) -> None:
    write_files(small_study(slices=3)[:1], tmp_path)
    answer = preread("send", tmp_path, "--port", "9")
    assert answer.returncode == 1
    assert "error" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_folder_that_is_no_demo_is_not_emptied(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("keep me")
    answer = preread("analyze", *write_files(small_study(slices=3), tmp_path / "in"), "--out", tmp_path)
    assert answer.returncode == 1
    assert "choose another --out" in answer.stderr.replace("\n", " ")
    assert precious.read_text() == "keep me"
