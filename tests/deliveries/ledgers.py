"""The real ledger, told of a run whose objects are to be delivered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dicom_node.ledger import Ledger
from dicom_node.ledger.records import OutputObject, Run
from dicom_node.study import Digest
from integration.delivery import DeliveryItem


def note_run(ledger: Ledger, items: Sequence[DeliveryItem], at: datetime) -> None:
    """Begin the run of these objects and record them as its results."""
    run_id, study_key = items[0].run_id, items[0].study_key
    ledger.begin_run(
        Run(
            run_id=run_id,
            study_key=study_key,
            version=1,
            instance_digest=Digest("0" * 64),
            predecessor=None,
            created_at=at,
        )
    )
    ledger.record_objects(
        run_id,
        [
            OutputObject(
                object_uid=item.object_uid,
                kind=item.kind,
                path=item.path.name,
                sha256="0" * 64,
                sop_class_uid=item.sop_class_uid or "",
                series_uid="",
            )
            for item in items
        ],
    )
