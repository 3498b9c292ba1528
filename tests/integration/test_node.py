"""The whole node in one process: what a PACS admin relies on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pydicom
import pytest
from integration_rig import embedded_settings, ended_runs, send_study, small_study, wait_until
from random_model_package import NAME

from dicom_node.ledger import DeliveryState, RunState
from integration.app import Node
from integration.destinations import FolderSettings, StowSettings
from integration.settings import HttpSection

pytestmark = pytest.mark.filterwarnings("ignore")  # DBOS's and uvicorn's own threads warn at shutdown


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(embedded_settings(tmp_path)) as running:
        running.start()
        yield running


def results_of(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted((folder / "results").rglob("*")):
        if path.is_file():
            found.setdefault(path.name.split("-")[0].removesuffix(".json"), []).append(path)
    return found


def test_a_study_sent_over_dicom_ends_in_confirmed_results(node: Node, tmp_path: Path) -> None:
    send_study(node, small_study(), tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    row = node.ledger.run(ended_runs(node)[0])
    assert row.state is RunState.DONE, row.reason
    assert {d.state for d in node.ledger.deliveries_of(row.run.run_id)} == {DeliveryState.CONFIRMED}
    results = results_of(tmp_path)
    assert set(results) == {
        "segmentation",
        "measurements",
        "volumes",
        "narrative",
        "pdf",
        "overview",
        "bundle",
    }
    assert all(len(paths) == 1 for paths in results.values())


def test_the_segmentation_lies_in_the_study_and_names_its_algorithm(node: Node, tmp_path: Path) -> None:
    study = small_study()
    send_study(node, study, tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    segmentation = pydicom.dcmread(results_of(tmp_path)["segmentation"][0])
    assert segmentation.StudyInstanceUID == study[0].StudyInstanceUID
    assert segmentation.PatientID == study[0].PatientID
    assert segmentation.Manufacturer == "Preread"
    assert (
        NAME in segmentation.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName
    )


def test_sending_the_study_again_changes_nothing(node: Node, tmp_path: Path) -> None:
    study = small_study()
    for _ in range(2):
        send_study(node, study, tmp_path / "study")
        wait_until(lambda: len(ended_runs(node)) == 1)
    wait_until(lambda: not node.ledger.study_overview(10)[0].is_collecting)
    assert node.ledger.study_overview(10)[0].run_count == 1
    assert all(len(paths) == 1 for paths in results_of(tmp_path).values())


def test_own_results_that_come_back_are_not_read(node: Node, tmp_path: Path) -> None:
    send_study(node, small_study(), tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    back = [pydicom.dcmread(paths[0]) for kind, paths in results_of(tmp_path).items() if kind != "bundle"]
    send_study(node, back, tmp_path / "back")
    wait_until(lambda: not node.ledger.unindexed(1))
    study = node.ledger.study_overview(10)[0]
    assert (study.run_count, study.is_collecting) == (1, False)


def test_own_results_are_known_even_if_the_archive_renamed_their_maker(node: Node, tmp_path: Path) -> None:
    send_study(node, small_study(), tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    back = [pydicom.dcmread(paths[0]) for kind, paths in results_of(tmp_path).items() if kind != "bundle"]
    for dataset in back:
        dataset.Manufacturer = "ARCHIVE"
        dataset.pop("ContributingEquipmentSequence", None)
    send_study(node, back, tmp_path / "back")
    wait_until(lambda: not node.ledger.unindexed(1))
    study = node.ledger.study_overview(10)[0]
    assert (study.run_count, study.is_collecting) == (1, False)


def test_another_content_under_a_known_uid_is_kept_and_shown(node: Node, tmp_path: Path) -> None:
    study = small_study()
    send_study(node, study, tmp_path / "study")
    study[0].ImageComments = "another content"
    send_study(node, study[:1], tmp_path / "again")
    with httpx.Client(base_url=f"http://127.0.0.1:{node.http_port}", trust_env=False) as client:
        (conflict,) = client.get("/api/conflicts").raise_for_status().json()
    assert conflict["source_ae"] == "DEMO"


def test_late_images_make_a_new_version(node: Node, tmp_path: Path) -> None:
    study = small_study()
    send_study(node, study[:-1], tmp_path / "early")
    wait_until(lambda: len(ended_runs(node)) == 1)
    send_study(node, study[-1:], tmp_path / "late")
    wait_until(lambda: len(ended_runs(node)) == 2)
    study_key = node.ledger.study_overview(10)[0].study_key
    first, second = node.ledger.runs_of(study_key)
    assert (first.run.version, second.run.version) == (1, 2)
    assert second.run.predecessor == first.run.run_id
    assert second.state is RunState.DONE, second.reason


def test_a_study_that_no_rule_wants_is_done_and_says_why(node: Node, tmp_path: Path) -> None:
    from dicom_node.phantom import ct_series

    send_study(node, list(ct_series(3)), tmp_path / "ct")
    wait_until(lambda: len(ended_runs(node)) == 1)
    row = node.ledger.run(ended_runs(node)[0])
    assert row.state is RunState.DONE
    assert row.decision is not None
    reasons = {entry["rule"]: entry["reasons"] for entry in row.decision["explanations"]}
    assert "MR" in " ".join(reasons["brain"])


def test_a_series_that_cannot_be_stacked_is_quarantined_with_its_reason(node: Node, tmp_path: Path) -> None:
    study = small_study()
    for dataset in study:
        if "FLAIR" in dataset.SeriesDescription:
            del dataset.ImagePositionPatient
    send_study(node, study, tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    row = node.ledger.run(ended_runs(node)[0])
    assert row.state is RunState.QUARANTINED
    assert "osition" in row.reason


def test_http_shows_the_run_and_wants_no_token_on_loopback(node: Node, tmp_path: Path) -> None:
    send_study(node, small_study(), tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    with httpx.Client(base_url=f"http://127.0.0.1:{node.http_port}", trust_env=False) as client:
        study = client.get("/api/studies").raise_for_status().json()[0]
        runs = client.get(f"/api/studies/{study['study_key']}/runs").raise_for_status().json()
        assert runs[0]["state"] == "done"
        assert {d["state"] for d in runs[0]["deliveries"]} == {"confirmed"}
        assert client.get("/api/runs/nope").status_code == 404
        metrics = client.get("/metrics").text
        assert 'preread_runs_total{state="done"} 1.0' in metrics
        assert 'preread_instances{state="indexed"} 21.0' in metrics


def test_stow_is_another_door_to_the_same_intake(node: Node, tmp_path: Path) -> None:
    body = b""
    from integration_rig import write_files

    for path in write_files(small_study(), tmp_path / "study"):
        body += b"--b\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    url = f"http://127.0.0.1:{node.http_port}/dicom-web/studies"
    with httpx.Client(trust_env=False, headers=headers) as client:
        answer = client.post(url, content=body + b"--b--\r\n")
        assert answer.status_code == 200
        assert len(answer.json()["00081199"]["Value"]) == len(small_study())
        mismatch = client.post(f"{url}/1.2.3", content=body + b"--b--\r\n")
        assert mismatch.status_code == 409
        broken = client.post(url, content=body)
        assert broken.status_code == 400
    wait_until(lambda: len(ended_runs(node)) == 1)
    assert node.ledger.run(ended_runs(node)[0]).state is RunState.DONE


def test_a_token_guards_everything_but_health(tmp_path: Path) -> None:
    settings = embedded_settings(tmp_path, http=HttpSection(port=0, token="s3cret"))  # type: ignore[arg-type]
    with Node(settings) as node:
        node.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{node.http_port}", trust_env=False) as client:
            assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
            assert client.get("/api/studies").status_code == 401
            assert client.post("/dicom-web/studies", content=b"").status_code == 401
            assert client.get("/api/studies", headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_a_destination_that_is_down_does_not_hold_up_the_other(tmp_path: Path) -> None:
    settings = embedded_settings(
        tmp_path,
        destinations=(
            StowSettings(name="down", type="stow", url="http://127.0.0.1:9"),  # type: ignore[arg-type]
            FolderSettings(name="results", type="folder", path=tmp_path / "results"),
        ),
    )
    with Node(settings) as node:
        node.start()
        send_study(node, small_study(), tmp_path / "study")
        wait_until(lambda: len(node.ledger.runs_in([RunState.DELIVERING])) == 1)
        run_id = node.ledger.runs_in([RunState.DELIVERING])[0].run.run_id

        def states(destination: str) -> set[DeliveryState]:
            return {d.state for d in node.ledger.deliveries_of(run_id) if d.destination == destination}

        wait_until(lambda: states("results") == {DeliveryState.CONFIRMED})
        kinds = {o.object_uid: o.kind for o in node.ledger.objects_of(run_id)}
        queued = {kinds[d.object_uid] for d in node.ledger.deliveries_of(run_id) if d.destination == "down"}
        assert "bundle" not in queued, "a PACS takes no Bundle"
        assert states("down") == {DeliveryState.QUEUED}
        assert node.ledger.run(run_id).state is RunState.DELIVERING


def test_a_restart_resumes_what_was_in_progress(tmp_path: Path) -> None:
    settings = embedded_settings(tmp_path)
    with Node(settings) as node:
        node.start()
        send_study(node, small_study(), tmp_path / "study")
    with Node(settings) as node:
        node.start()
        wait_until(lambda: len(ended_runs(node)) == 1)
        assert node.ledger.run(ended_runs(node)[0]).state is RunState.DONE


def test_requeue_reads_a_quarantined_study_again(tmp_path: Path) -> None:
    settings = embedded_settings(tmp_path)
    models = tmp_path / "models"
    models.rename(tmp_path / "hidden")
    with Node(settings) as node:
        node.start()
        send_study(node, small_study(), tmp_path / "study")
        wait_until(lambda: len(ended_runs(node)) == 1)
        row = node.ledger.run(ended_runs(node)[0])
        assert row.state is RunState.QUARANTINED
        assert "not installed" in row.reason
    (tmp_path / "hidden").rename(models)
    with Node(settings) as node:
        node.start()
        assert "attempt 2" in node.requeue(row.run.run_id)
        wait_until(lambda: node.ledger.run(row.run.run_id).state is RunState.DONE)


def test_no_patient_data_in_logs_and_engine(
    node: Node, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = small_study()
    for dataset in study:
        dataset.PatientName, dataset.PatientID = "SECRET^PERSON", "SECRET-4711"
    send_study(node, study, tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    with sqlite3.connect(tmp_path / "data" / "engine.db") as connection:
        engine_rows = "\n".join(connection.iterdump())
    for place in (*capfd.readouterr(), engine_rows, node.metrics.render().decode()):
        assert "SECRET" not in place
        assert study[0].StudyInstanceUID not in place


def test_the_bundle_is_preliminary_and_marked(node: Node, tmp_path: Path) -> None:
    send_study(node, small_study(), tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    bundle = json.loads(results_of(tmp_path)["bundle"][0].read_text())
    report = next(
        e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DiagnosticReport"
    )
    assert report["status"] == "preliminary"
    assert "AIAST" in json.dumps(report["meta"])


def test_a_study_without_patient_id_gives_the_images_results_and_says_what_is_missing(
    node: Node, tmp_path: Path
) -> None:
    study = small_study()
    for dataset in study:
        dataset.PatientID = ""
    send_study(node, study, tmp_path / "study")
    wait_until(lambda: len(ended_runs(node)) == 1)
    row = node.ledger.run(ended_runs(node)[0])
    assert row.state is RunState.QUARANTINED
    assert "FHIR" in row.reason
    assert "segmentation" in results_of(tmp_path)
    assert "bundle" not in results_of(tmp_path)
