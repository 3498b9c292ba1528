"""Adapter: puts a package into the models folder, whole and verified, or not at all.

Nothing of it is visible there before every check has passed: the copy is made beside the others under a
hidden name, and renamed at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from inference.cards import CARD_NAME
from inference.packages import ModelPackage, ModelPackageError, load_package

MAX_FILES: Final = 2_000
"""Most files of a package."""

MAX_BYTES: Final = 4 * 1024**3
"""Most bytes of a package, unpacked: the largest network that a node can hold resident anyway."""

_SYMLINK: Final = 0o120000
_FILE_TYPE: Final = 0o170000
_CHUNK: Final = 1024 * 1024


def install_package(source: Path, models_dir: Path, check: Callable[[ModelPackage], None]) -> ModelPackage:
    """Install a package from a folder or a zip file.

    Parameters
    ----------
    source : Path
        A folder with the card, or a zip file that holds one such folder or its content.
    models_dir : Path
        The models folder; it need not exist.
    check : callable
        Called with the package before it becomes visible; raises what is wrong with it.

    Returns
    -------
    ModelPackage
        The installed package.

    Raises
    ------
    ModelPackageError
        If the source is no package, is too large, leaves its folder, or fails a check; or if that version is
        installed already.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=models_dir) as held:
        staged = _stage(source, Path(held))
        package = load_package(staged)
        target = models_dir / package.card.name / package.card.version
        if target.exists():
            raise ModelPackageError(
                f"{package.card.name}/{package.card.version} is installed already: a changed package needs "
                "a new version."
            )
        check(package)
        target.parent.mkdir(exist_ok=True)
        os.replace(staged, target)  # noqa: PTH105 - atomic: readers see the whole package or none
    return load_package(target)


def _stage(source: Path, held: Path) -> Path:
    """Copy a source to ``held/<name>/<version>`` as its card says, and return that folder."""
    raw = held / "raw"
    if source.is_dir():
        _copy_folder(source, raw)
    elif zipfile.is_zipfile(source):
        _unpack(source, raw)
    else:
        raise ModelPackageError(
            f"{source.name} is neither a folder nor a zip file: give the package's folder."
        )
    root = _root_of(raw)
    name, version = _named_by(root / CARD_NAME)
    staged = held / "checked" / name / version
    staged.parent.mkdir(parents=True)
    root.rename(staged)
    return staged


def _root_of(raw: Path) -> Path:
    """Return the folder that holds the card: the source itself, or the one that is packed in it."""
    cards = sorted(raw.glob(f"**/{CARD_NAME}"), key=lambda path: len(path.parts))
    if not cards or len(cards[0].relative_to(raw).parts) > 3:  # noqa: PLR2004 - name, version, card
        raise ModelPackageError(f"There is no {CARD_NAME} in it: a package is a folder with a card.")
    if len(cards) > 1 and len(cards[1].parts) == len(cards[0].parts):
        raise ModelPackageError("It holds several packages: add them one by one.")
    return cards[0].parent


def _named_by(card: Path) -> tuple[str, str]:
    """Return name and version as a card states them; everything else of it is checked later."""
    import yaml

    try:
        content = yaml.safe_load(card.read_text(encoding="utf-8"))
        named = (str(content["name"]), str(content["version"]))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as exc:
        raise ModelPackageError(f"{CARD_NAME} is unreadable or has no name and version: correct it.") from exc
    if any(part in {"", ".", ".."} or "/" in part or "\\" in part or "\0" in part for part in named):
        raise ModelPackageError(f"{CARD_NAME}: name or version is no folder name: correct it.")
    return named


def _copy_folder(source: Path, raw: Path) -> None:
    """Copy plain files; links are refused, because they lead out of the package."""
    count = size = 0
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if any(part.startswith(".") or part == "__pycache__" for part in relative.parts):
            continue
        if path.is_symlink():
            raise ModelPackageError(f"{relative} is a link: a package holds plain files only.")
        if path.is_dir():
            continue
        count, size = count + 1, size + path.stat().st_size
        _require_limits(count, size)
        (raw / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, raw / relative)
    if not count:
        raise ModelPackageError("The folder is empty: give the package's folder.")


def _unpack(source: Path, raw: Path) -> None:
    """Unpack a zip file within its folder and within limits, whatever its directory claims."""
    with _readable_zip(source) as archive:
        size = 0
        for count, member in enumerate(archive.infolist(), start=1):
            name = PurePosixPath(member.filename)
            is_outside = name.is_absolute() or ".." in name.parts or "\\" in member.filename
            if is_outside or ":" in member.filename or (member.external_attr >> 16) & _FILE_TYPE == _SYMLINK:
                raise ModelPackageError(f"The zip file leads out of its folder ({member.filename!r}).")
            if member.is_dir():
                continue
            target = raw.joinpath(*name.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, target.open("wb") as unpacked:
                while chunk := packed.read(_CHUNK):
                    size += len(chunk)
                    _require_limits(count, size)
                    unpacked.write(chunk)


@contextmanager
def _readable_zip(source: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as exc:
        raise ModelPackageError(
            f"{source.name} is damaged, encrypted or packed unusually: pack it again."
        ) from exc


def _require_limits(count: int, size: int) -> None:
    if count > MAX_FILES or size > MAX_BYTES:
        raise ModelPackageError(
            f"It is larger than a package may be ({MAX_FILES} files, {MAX_BYTES // 1024**3} GiB)."
        )
