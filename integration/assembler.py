"""Adapter: turns what arrives into runs.

One thread looks a few times a second: it reads the headers of new instances,
asks of each study that is still arriving whether it is complete, and begins a
run for those that are. Everything it does can be repeated: a crash at any point
leaves work that the next look does again, with the same names.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from dicom_node.clock import Clock
from dicom_node.completeness import CompletenessPolicy, Verdict, decide
from dicom_node.intake import index_received
from dicom_node.ledger import Ledger, StudyEvidence
from dicom_node.storage import InstanceStore
from dicom_node.study import StudyKey, digest_instance_set
from integration.observability import Metrics, describe_error
from integration.pipeline import PIPELINE_VERSION
from integration.run_folder import RunFolder

_LOOK_EVERY_S = 0.25
_INDEX_BATCH = 500
_DIGEST_DIGITS = 12

log = structlog.get_logger(__name__)

#: Asks a source how many instances a study has there: (source AE title, Study Instance UID) -> count or None.
AskExpected = Callable[[str, str], int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletenessPolicies:
    """When studies of each source count as complete."""

    default: CompletenessPolicy
    by_source: dict[str, CompletenessPolicy]

    def of(self, source_ae: str) -> CompletenessPolicy:
        """Return the policy of one source."""
        return self.by_source.get(source_ae, self.default)


def name_run(study_key: StudyKey, instance_digest: str) -> str:
    """Return the id of a run: the study, its instance set, and the pipeline that reads it."""
    return f"{study_key}-{instance_digest[:_DIGEST_DIGITS]}-{PIPELINE_VERSION}"


class Assembler:
    """Begins a run for every study that is complete.

    Parameters
    ----------
    submit : callable
        Hands a run to the engine: (run id, attempt).
    ask_expected : callable
        See :data:`AskExpected`; asked once per change of a study.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: InstanceStore,
        site_key: bytes,
        policies: CompletenessPolicies,
        folder_of: Callable[[str], RunFolder],
        submit: Callable[[str, int], None],
        ask_expected: AskExpected,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._site_key = site_key
        self._policies = policies
        self._folder_of = folder_of
        self._submit = submit
        self._ask_expected = ask_expected
        self._metrics = metrics
        self._clock = clock
        self._asked: dict[StudyKey, datetime] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="preread-assembler", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def wake(self) -> None:
        """Look now: something happened."""
        self._wake.set()

    def stop(self) -> None:
        """Stop looking and wait for the look in progress."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def look(self) -> None:
        """Index what arrived, then begin a run for every study that is complete."""
        while index_received(self._ledger, self._store, self._site_key, limit=_INDEX_BATCH) == _INDEX_BATCH:
            pass
        now = self._clock()
        arriving = self._ledger.collecting(now)
        self._metrics.collecting.set(len(arriving))
        for evidence in arriving:
            try:
                verdict = self._judge(evidence, now)
                if verdict.is_complete:
                    self._begin_run(evidence.study_key, verdict)
            except Exception as exc:  # noqa: BLE001 - one study must not hold up the others
                log.error("study_not_assembled", study_key=evidence.study_key, error=describe_error(exc))

    def _judge(self, evidence: StudyEvidence, now: datetime) -> Verdict:
        policy = self._policies.of(evidence.source_ae)
        verdict = decide(evidence, policy, now)
        if verdict.is_complete or evidence.open_associations or evidence.expected_count is not None:
            return verdict
        if self._asked.get(evidence.study_key) == evidence.last_received_at:
            return verdict
        self._asked[evidence.study_key] = evidence.last_received_at
        expected = self._ask_expected(evidence.source_ae, self._ledger.study(evidence.study_key).study_uid)
        if expected is None:
            return verdict
        self._ledger.note_expected(evidence.study_key, expected, now)
        return verdict

    def _begin_run(self, study_key: StudyKey, verdict: Verdict) -> None:
        study = self._ledger.study(study_key)
        if not study.instances:
            return
        digest = digest_instance_set(study.instances)
        run_id = name_run(study_key, digest)
        folder = self._folder_of(run_id)
        if not folder.exists("study.json"):
            folder.create()
            folder.write_study(study)
        run = self._ledger.begin_next_run(run_id, study_key, digest, self._clock())
        self._submit(run_id, 1)
        self._ledger.mark_assembled(study_key, run_id)
        self._asked.pop(study_key, None)
        log.info(
            "study_complete", study_key=study_key, run_id=run_id, version=run.version,
            instances=len(study.instances), series=len(study.series), reason=verdict.reason,
        )  # fmt: skip

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception as exc:  # noqa: BLE001 - one study must not hold up the others
                log.error("assembler_failed", error=describe_error(exc))
            self._wake.wait(_LOOK_EVERY_S)
            self._wake.clear()
