from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path

import pytest
import torch
from foreign_packages import SIDE, as_torchscript, volume_card, write_package, write_torchscript_package
from random_model_package import NAME, write_random_package
from tiny_packages import write_every_package

from inference import installation
from inference.installation import install_package
from inference.packages import ModelPackageError, discover, load_package
from inference.rehearsal import rehearse
from inference.runner import Runner


def accept(package):
    del package


def zipped(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{prefix}{path.relative_to(folder)}")
    return target


def nothing_is_left(models: Path) -> bool:
    return not list(models.iterdir())


@pytest.mark.parametrize("prefix", [None, "", "package/", f"{NAME}/0.1.0/"])
def test_a_package_is_installed_from_a_folder_or_a_zip_file_whatever_lies_around_it(tmp_path, prefix):
    folder = write_random_package(tmp_path / "given")
    source = folder if prefix is None else zipped(folder, tmp_path / "given.zip", prefix)
    installed = install_package(source, tmp_path / "models", accept)
    assert installed.folder == tmp_path / "models" / NAME / "0.1.0"
    assert [path.name for path in (tmp_path / "models").iterdir()] == [NAME]
    assert discover(tmp_path / "models").newest[NAME].card == load_package(folder).card


def test_versions_lie_side_by_side_and_an_installed_one_is_never_replaced(tmp_path):
    for version in ("0.1.0", "0.2.0"):
        install_package(
            write_random_package(tmp_path / version, version=version), tmp_path / "models", accept
        )
    assert [p.card.version for p in discover(tmp_path / "models").packages] == ["0.1.0", "0.2.0"]
    with pytest.raises(ModelPackageError, match="installed already"):
        install_package(tmp_path / "0.1.0", tmp_path / "models", accept)


def test_nothing_stays_of_a_package_that_fails_a_check(tmp_path):
    def object_to(package):
        raise ModelPackageError("no")

    with pytest.raises(ModelPackageError, match="no"):
        install_package(write_random_package(tmp_path / "given"), tmp_path / "models", object_to)
    assert nothing_is_left(tmp_path / "models")


def test_a_package_whose_digest_differs_is_not_installed(tmp_path):
    folder = write_random_package(tmp_path / "given")
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelPackageError, match="SHA-256 differs"):
        install_package(folder, tmp_path / "models", accept)
    assert nothing_is_left(tmp_path / "models")


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "a\\..\\outside", "C:outside"])
def test_a_zip_file_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    source = zipped(write_random_package(tmp_path / "given"), tmp_path / "given.zip")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ModelPackageError, match="leads out"):
        install_package(source, tmp_path / "models", accept)
    assert nothing_is_left(tmp_path / "models")
    assert not (tmp_path / "outside").exists()


def test_links_are_refused_in_folders_and_in_zip_files(tmp_path):
    folder = write_random_package(tmp_path / "given")
    source = zipped(folder, tmp_path / "given.zip")
    with zipfile.ZipFile(source, "a") as archive:
        link = zipfile.ZipInfo("secrets")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ModelPackageError, match="leads out"):
        install_package(source, tmp_path / "models", accept)
    (folder / "weights.safetensors").symlink_to("/etc/hostname")
    with pytest.raises(ModelPackageError, match="link"):
        install_package(folder, tmp_path / "models", accept)


@pytest.mark.parametrize(("limit", "value"), [("MAX_BYTES", 1000), ("MAX_FILES", 1)])
def test_a_package_that_is_too_large_is_refused(tmp_path, monkeypatch, limit, value):
    folder = write_random_package(tmp_path / "given")
    monkeypatch.setattr(installation, limit, value)
    for source in (folder, zipped(folder, tmp_path / "given.zip")):
        with pytest.raises(ModelPackageError, match="larger"):
            install_package(source, tmp_path / "models", accept)


def test_what_is_no_package_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    folder = write_random_package(tmp_path / "given")
    two = tmp_path / "two"
    shutil.copytree(folder, two / "a")
    shutil.copytree(folder, two / "b")
    for source in (tmp_path / "empty", tmp_path / "file.txt", two):
        with pytest.raises(ModelPackageError):
            install_package(source, tmp_path / "models", accept)


@pytest.mark.parametrize("name", ["..", "a/b", ""])
def test_a_card_cannot_name_a_folder_elsewhere(tmp_path, name):
    folder = write_random_package(tmp_path / "given")
    card = (folder / "model.yaml").read_text().replace(f"name: {NAME}", f"name: {name!r}", 1)
    (folder / "model.yaml").write_text(card)
    with pytest.raises(ModelPackageError, match="folder name"):
        install_package(folder, tmp_path / "models", accept)


def test_a_rehearsal_lets_a_sound_package_pass(tmp_path):
    for folder in (write_random_package(tmp_path), write_torchscript_package(tmp_path)):
        assert rehearse(load_package(folder), Runner("cpu")).mask is not None


def test_detectors_classifiers_and_fusion_are_rehearsed_until_they_answer(tmp_path):
    write_every_package(tmp_path)
    tasks = set()
    for package in discover(tmp_path).packages:
        outcome = rehearse(package, Runner("cpu"))
        assert not outcome.analysis.is_refused, outcome.analysis.doubts
        tasks.add(package.card.task)
    assert {"classification", "detection"} <= tasks


class Pooled(torch.nn.Module):
    def forward(self, images):
        return torch.nn.functional.avg_pool3d(images.expand(-1, 3, -1, -1, -1), 2)


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (Pooled(), {}, "input and card want"),
        (torch.nn.Conv3d(1, 7, 1), {}, "7 channels for the 2 labels"),
        (torch.nn.Conv3d(2, 3, 1), {}, "refused"),
        (
            torch.nn.Conv3d(1, 3, 1),
            {"activation": "none"},
            "no probability",
        ),
    ],
)
def test_a_rehearsal_finds_a_network_that_is_not_what_its_card_says(tmp_path, network, changes, message):
    torch.manual_seed(1)
    channels = getattr(network, "in_channels", 1)
    traced = torch.zeros(1, channels, SIDE, SIDE, SIDE)
    files = {"model.ts": as_torchscript(network.eval(), SIDE) if channels == 1 else scripted(network, traced)}
    card = volume_card("odd", {"format": "torchscript"} | changes, files)
    with pytest.raises(ModelPackageError, match=message):
        rehearse(load_package(write_package(tmp_path, card, files)), Runner("cpu"))


def scripted(network, example):
    import io
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network.eval(), example), buffer)
    return buffer.getvalue()
