"""Orthanc's auto-router (orthanc/route.lua) against a receiver that takes notes."""

from __future__ import annotations

import http.server
import json
import threading
from contextlib import contextmanager

import pytest
from stack.modality import make_study, receiver, send, uid_of
from stack.servers import orthanc_server
from stack.waiting import wait_for

from orthanc.companions import OrthancSettings
from orthanc.process import free_port

pytestmark = pytest.mark.orthanc

STABLE_AGE_S = 1


@contextmanager
def node_api():
    """Take notes of what is posted: (path, body, authorization)."""
    notes = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            notes.append((self.path, json.loads(body), self.headers["Authorization"]))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            """Keep the test's output clean."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, notes
    finally:
        server.shutdown()
        server.server_close()


def settings_for(folder, dicom_port, api_port=None):
    return OrthancSettings(
        folder=folder,
        preread_dicom_port=dicom_port,
        preread_api_url=f"http://127.0.0.1:{api_port}" if api_port else "",
        preread_api_token="a-token" if api_port else "",
        stable_age_s=STABLE_AGE_S,
    )


def metadata(orthanc):
    """Names and values of the only study's metadata; also a heart beat for the router."""
    (study,) = orthanc.get("/studies")
    return orthanc.get(f"/studies/{study}/metadata?expand")


def is_settled(orthanc):
    values = metadata(orthanc)
    return "PrereadRouted" in values and "PrereadPending" not in values


def uids(instances):
    return {instance.SOPInstanceUID for instance in instances}


def test_every_stable_study_reaches_the_node_which_is_told_how_many_images_there_are(tmp_path):
    study = make_study(1, series_descriptions=("AX FLAIR", "AX T1"))
    with (
        receiver() as node,
        node_api() as (api_port, notes),
        orthanc_server(settings_for(tmp_path, node.port, api_port)) as orthanc,
    ):
        assert set(send(study, orthanc.dicom_port)) == {0}
        wait_for(lambda: is_settled(orthanc), what="the study to be routed")

        assert set(node.taken) == uids(study)
        assert len(node.taken) == len(study), "an image was sent twice"
        wait_for(lambda: notes, what="the notice to the node")
        assert notes == [
            (f"/studies/{study[0].StudyInstanceUID}/stable", {"instances": 16}, "Bearer a-token")
        ]


def test_an_archive_that_has_seen_hundreds_of_changes_goes_on_answering(tmp_path):
    first, second = make_study(7, slices=150, size=16), make_study(8, slices=150, size=16)
    with receiver() as node, orthanc_server(settings_for(tmp_path, node.port)) as orthanc:
        for study in (first, second):
            assert set(send(study, orthanc.dicom_port)) == {0}
            wait_for(
                lambda study=study: orthanc.get("/system") and uids(study) <= set(node.taken),
                what="the study to be routed",
            )
        assert orthanc.get("/changes?limit=1&since=0")["Done"] is False, "one page held all changes"


def test_late_images_are_routed_again_and_results_never(tmp_path):
    early, late = make_study(2, slices=4), make_study(2, slices=4, first_slice=4)
    own = make_study(2, slices=1, series_descriptions=("AI overview",), manufacturer="Preread")
    segmentation = make_study(2, slices=1, series_descriptions=("SEG of another maker",), modality="SEG")
    with receiver() as node, orthanc_server(settings_for(tmp_path, node.port)) as orthanc:
        send(early, orthanc.dicom_port)
        wait_for(lambda: is_settled(orthanc), what="the first images to be routed")
        send(own + segmentation, orthanc.dicom_port)
        send(late, orthanc.dicom_port)
        wait_for(lambda: metadata(orthanc) and uids(late) <= set(node.taken), what="the late images")
        wait_for(lambda: is_settled(orthanc), what="the study to settle")

        assert set(node.taken) == uids(early) | uids(late)


def test_a_study_with_nothing_but_results_is_not_routed(tmp_path):
    own = make_study(3, slices=2, series_descriptions=("AI overview",), manufacturer="Preread")
    marker = make_study(4, slices=1)
    with receiver() as node, orthanc_server(settings_for(tmp_path, node.port)) as orthanc:
        send(own, orthanc.dicom_port)
        (study,) = orthanc.get("/studies")
        wait_for(lambda: orthanc.get(f"/studies/{study}")["IsStable"], what="the results to be stable")
        send(marker, orthanc.dicom_port)
        wait_for(lambda: orthanc.get("/system") and node.taken, what="the study that came later")

        assert set(node.taken) == uids(marker)


def test_a_node_that_is_down_gets_its_studies_when_it_is_back(tmp_path):
    study, port = make_study(5), free_port()
    with orthanc_server(settings_for(tmp_path, port)) as orthanc:
        send(study, orthanc.dicom_port)
        wait_for(lambda: "PrereadPending" in metadata(orthanc), what="the router to try")
        wait_for(
            lambda: any(job["State"] == "Failure" for job in orthanc.get("/jobs?expand")),
            what="the first failure",
        )
        with receiver(port=port) as node:
            wait_for(lambda: is_settled(orthanc), what="the study to be sent after all")
            assert set(node.taken) == uids(study)


def test_a_pending_study_survives_the_death_of_orthanc(tmp_path):
    study, port = make_study(6), free_port()
    with orthanc_server(settings_for(tmp_path, port)) as orthanc:
        send(study, orthanc.dicom_port)
        wait_for(lambda: "PrereadPending" in metadata(orthanc), what="the router to try")
        orthanc.kill()
        with receiver(port=port) as node:
            orthanc.start()
            wait_for(lambda: is_settled(orthanc), what="the study to be sent after the restart")
            assert set(node.taken) == uids(study)


def test_one_refused_image_does_not_hold_up_the_others_for_ever(tmp_path):
    study = make_study(7, slices=3)
    with receiver() as node, orthanc_server(settings_for(tmp_path, node.port)) as orthanc:
        node.refused.add(uid_of("instance", 7, 1, "AX FLAIR", 0))
        node.refused.add(uid_of("instance", 7, 1, "AX FLAIR", 1))
        node.refused.add(uid_of("instance", 7, 1, "AX FLAIR", 2))
        send(study, orthanc.dicom_port)
        wait_for(
            lambda: metadata(orthanc).get("PrereadPending", "").startswith("1"), what="the first refusal"
        )
        node.refused.discard(uid_of("instance", 7, 1, "AX FLAIR", 2))
        wait_for(lambda: metadata(orthanc) and node.taken, what="the image that is not refused", timeout_s=90)

        assert "PrereadPending" in metadata(orthanc)
        node.refused.clear()
        wait_for(lambda: is_settled(orthanc), what="the study to be complete", timeout_s=90)
        assert set(node.taken) == uids(study)
