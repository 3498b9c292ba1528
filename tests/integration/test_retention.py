"""Pruning: what is done and old goes, with its files; everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration_rig import embedded_settings, ended_runs, send_study, small_study, wait_until

from dicom_node.ledger import Ledger, RunState
from integration.app import Node
from integration.retention import prune_studies

pytestmark = pytest.mark.filterwarnings("ignore")  # DBOS's own threads warn at shutdown


def test_a_finished_study_goes_and_a_quarantined_one_stays(tmp_path: Path) -> None:
    settings = embedded_settings(tmp_path)
    broken = small_study(2)
    for dataset in broken:
        del dataset.ImagePositionPatient
    with Node(settings) as node:
        node.start()
        send_study(node, small_study(1), tmp_path / "good")
        send_study(node, broken, tmp_path / "broken")
        wait_until(lambda: len(ended_runs(node)) == 2)
        done = node.ledger.runs_in([RunState.DONE])[0].run.run_id
        node.notes.write(node.ledger.run(done).run.study_key, "cough")
        pruned_deliveries = len(node.ledger.deliveries_of(done))
    runs = tmp_path / "data" / "runs"
    stored = tmp_path / "data" / "instances"
    before = len(list(stored.rglob("*.dcm")))

    kept = prune_studies(settings, keep_days=1, is_dry_run=False, progress=lambda *_: None)
    assert (kept.studies, len(list(runs.iterdir()))) == (0, 2)
    planned = prune_studies(settings, keep_days=0, is_dry_run=True, progress=lambda *_: None)
    assert (planned.studies, len(list(runs.iterdir()))) == (1, 2)
    pruned = prune_studies(settings, keep_days=0, is_dry_run=False, progress=lambda *_: None)
    assert pruned == planned
    assert list((tmp_path / "data" / "notes").iterdir()) == []
    assert len(list(runs.iterdir())) == 1
    assert len(list(stored.rglob("*.dcm"))) == before - pruned.instances

    ledger = Ledger.connect(settings.ledger_url)
    (left,) = ledger.study_overview(10)
    assert left.last_run_state is RunState.QUARANTINED
    ledger.close()
    with Node(settings) as node:  # and a pruned study may come again
        node.start()
        send_study(node, small_study(1), tmp_path / "good")
        wait_until(lambda: len(node.ledger.study_overview(10)) == 2)
        wait_until(lambda: not any(study.is_collecting for study in node.ledger.study_overview(10)))
        again = next(s for s in node.ledger.study_overview(10) if s.study_key != left.study_key).last_run_id
        assert again is not None
        wait_until(lambda: len(node.ledger.deliveries_of(again)) == pruned_deliveries)
        wait_until(lambda: node.ledger.run(again).state is RunState.DONE)
        assert (runs / again / "manifest.json").exists()
