"""Adapter: ``preread prune``: removes finished studies that are older than the site keeps them.

Order matters: files first, ledger last, so that a crash leaves a study that the
next prune finds again, and never files that nobody knows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from dicom_node.clock import utc_now
from dicom_node.ledger import Ledger
from integration.clinical import notes_store
from integration.recovery import forget_workflows
from integration.settings import Settings
from integration.site import open_store

_MEGABYTE = 1 << 20

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went, or would go."""

    studies: int
    instances: int
    megabytes: float


def prune_studies(settings: Settings, *, keep_days: float, is_dry_run: bool, progress: Progress) -> Pruned:
    """Remove studies whose runs are all done and that did not change for ``keep_days``.

    Quarantined studies and unconfirmed results are never removed.
    """
    ledger = Ledger.connect(settings.ledger_url)
    store = open_store(settings)
    instances, size_bytes = 0, 0
    try:
        ledger.migrate()
        finished = ledger.finished_before(utc_now() - timedelta(days=keep_days))
        for number, study_key in enumerate(finished, start=1):
            leftover = ledger.removable(study_key)
            instances += len(leftover.paths)
            size_bytes += sum(
                path.stat().st_size for name in leftover.paths if (path := store.path_of(name)).exists()
            )
            if not is_dry_run:
                for name in leftover.paths:
                    store.remove(name)
                for run_id in leftover.run_ids:
                    shutil.rmtree(settings.data_dir / "runs" / run_id, ignore_errors=True)
                notes_store(settings).remove(study_key)
                forget_workflows(settings.engine_url, leftover.run_ids)
                ledger.forget_study(study_key)
            progress("pruning", number, len(finished))
    finally:
        ledger.close()
    return Pruned(studies=len(finished), instances=instances, megabytes=size_bytes / _MEGABYTE)
