"""A node's front half on a real ledger and store, with a clock that the test turns and no engine."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.completeness import CompletenessPolicy
from dicom_node.intake import Intake, Provenance
from dicom_node.ledger import Ledger
from dicom_node.storage import InstanceStore
from integration.assembler import Assembler, CompletenessPolicies
from integration.observability import Metrics
from integration.run_folder import RunFolder

SITE_KEY = b"k" * 32


class Ward:
    """A node's front half: what arrives, and what is handed to the engine."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.ledger = Ledger.connect(f"sqlite:///{folder / 'ledger.db'}", clock=self.clock)
        self.ledger.migrate()
        store = InstanceStore(folder / "instances", min_free_bytes=0, min_free_fraction=0.0)
        self.intake = Intake(store, self.ledger, self.clock)
        self.submitted: list[tuple[str, int]] = []
        self.expected: int | None = None
        self.questions: list[str] = []
        self.runs = folder / "runs"
        self.assembler = Assembler(
            ledger=self.ledger,
            store=store,
            site_key=SITE_KEY,
            policies=CompletenessPolicies(
                default=CompletenessPolicy(quiet_period_s=5),
                by_source={"SLOW": CompletenessPolicy(quiet_period_s=60)},
            ),
            folder_of=lambda run_id: RunFolder(self.runs, run_id),
            submit=lambda run_id, attempt: self.submitted.append((run_id, attempt)),
            ask_expected=self.ask,
            metrics=Metrics(),
            clock=self.clock,
        )

    def clock(self) -> datetime:
        return self.now

    def ask(self, source_ae: str, _study_key: str, _study_uid: str) -> int | None:
        self.questions.append(source_ae)
        return self.expected

    def receive(self, datasets: list[Dataset], *, source: str = "CT1") -> None:
        provenance = Provenance(source_ae=source, source_address="", association_id=f"{source}-{self.now}")
        self.ledger.open_association(provenance.association_id, source, self.now)
        for dataset in datasets:
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            self.intake.accept(buffer.getvalue(), provenance)
        self.ledger.close_association(provenance.association_id, self.now, aborted=False)

    def look_after(self, seconds: float) -> list[tuple[str, int]]:
        self.now += timedelta(seconds=seconds)
        self.assembler.look()
        return self.submitted
