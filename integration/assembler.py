"""Adapter: turns what arrives into runs.

One thread looks a few times a second: it reads the headers of new instances,
asks of each study that is still arriving whether it is complete, and begins a
run for those that are, with the series of the patient's other study where a model
reads both. Everything it does can be repeated: a crash at any point
leaves work that the next look does again, with the same names.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from dicom_node.clock import Clock
from dicom_node.completeness import CompletenessPolicy, Verdict, decide
from dicom_node.errors import PrereadError
from dicom_node.intake import index_received
from dicom_node.ledger import Ledger, SiblingStudy, StudyEvidence
from dicom_node.pairing import (
    FusionNeed,
    PairingDecision,
    PairingPolicy,
    PairingRules,
    PatientStudy,
    decide_pairing,
)
from dicom_node.storage import InstanceStore
from dicom_node.study import Digest, Study, StudyKey, digest_instance_set
from integration.observability import Metrics, describe_error
from integration.pipeline import PIPELINE_VERSION
from integration.run_folder import RunFolder

_LOOK_EVERY_S = 0.25
_INDEX_BATCH = 500
_DIGEST_DIGITS = 12
_ASKERS = 4
#: Studies of which is remembered what they bring to fusion models.
_KNOWN_NEEDS = 1000
#: A source that cannot be asked answers within this; a look is not held up for longer.
_ANSWER_AT_ONCE_S = 0.05
#: A study waits no longer for its source's answer; then the quiet period decides.
_ANSWER_WITHIN_S = 15.0

log = structlog.get_logger(__name__)

#: Asks a source how many instances a study has there, results of our own left out:
#: (source AE title, study key, Study Instance UID) -> count or None.
AskExpected = Callable[[str, StudyKey, str], int | None]

#: Says what a study brings to the fusion models that the rules ask for, and what it lacks.
FindNeeds = Callable[[Study], tuple[FusionNeed, ...]]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A question to a source: how many instances the study has there."""

    about: datetime
    asked_at: datetime
    asked: Future[int | None]

    def is_open(self, now: datetime) -> bool:
        """Say whether an answer is still worth waiting for."""
        return not self.asked.done() and (now - self.asked_at).total_seconds() < _ANSWER_WITHIN_S

    def answer(self) -> int | None:
        """Return the count; None if the source did not say, or not in time."""
        if not self.asked.done() or self.asked.exception() is not None:
            return None
        return self.asked.result()


class Assembler:
    """Begins a run for every study that is complete.

    Parameters
    ----------
    submit : callable
        Hands a run to the engine: (run id, attempt).
    ask_expected : callable
        See :data:`AskExpected`; asked once per change of a study, in a thread of its own.
    pairing : PairingRules
        How the studies of a patient are read together; by default they are not.
    find_needs : callable
        See :data:`FindNeeds`; asked once per change of a study, and only where studies are paired.
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
        pairing: PairingRules | None = None,
        find_needs: FindNeeds = lambda _study: (),
    ) -> None:
        self._pairing = pairing or PairingRules()
        self._find_needs = find_needs
        self._needs: dict[StudyKey, tuple[datetime, tuple[FusionNeed, ...]]] = {}
        self._waiting: set[StudyKey] = set()
        self._ledger = ledger
        self._store = store
        self._site_key = site_key
        self._policies = policies
        self._folder_of = folder_of
        self._submit = submit
        self._ask_expected = ask_expected
        self._metrics = metrics
        self._clock = clock
        self._questions: dict[StudyKey, _Question] = {}
        self._askers = ThreadPoolExecutor(_ASKERS, thread_name_prefix="preread-asker")
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
        self._askers.shutdown(wait=False, cancel_futures=True)

    def look(self) -> None:
        """Index what arrived, then begin a run for every study that is complete."""
        while index_received(self._ledger, self._store, self._site_key, limit=_INDEX_BATCH) == _INDEX_BATCH:
            pass
        now = self._clock()
        arriving = self._ledger.collecting(now)
        self._metrics.collecting.set(len(arriving))
        complete: dict[StudyKey, Verdict] = {}
        for evidence in arriving:
            try:
                verdict = self._judge(evidence, now)
                if verdict.is_complete:
                    complete[evidence.study_key] = verdict
            except Exception as exc:  # noqa: BLE001 - one study must not hold up the others
                log.error("study_not_assembled", study_key=evidence.study_key, error=describe_error(exc))
        for study_key, verdict in complete.items():
            try:
                self._begin_run(study_key, verdict, complete.keys(), now)
            except Exception as exc:  # noqa: BLE001 - one study must not hold up the others
                log.error("study_not_assembled", study_key=study_key, error=describe_error(exc))

    def _judge(self, evidence: StudyEvidence, now: datetime) -> Verdict:
        if evidence.open_associations == 0 and evidence.unindexed_count == 0:
            question = self._ask(evidence, now)
            if question.is_open(now):
                return Verdict(is_complete=False, reason="the source was asked for its number of images")
            expected = question.answer()
            if expected is not None:
                evidence = replace(evidence, expected_count=expected, arrived_count=evidence.indexed_count)
        return decide(evidence, self._policies.of(evidence.source_ae), now)

    def _ask(self, evidence: StudyEvidence, now: datetime) -> _Question:
        """Return the question put to the source since the study last changed; put it if there is none."""
        question = self._questions.get(evidence.study_key)
        if question is None or question.about != evidence.last_received_at:
            study_uid = self._ledger.study(evidence.study_key).study_uid
            asked = self._askers.submit(self._ask_expected, evidence.source_ae, evidence.study_key, study_uid)
            question = _Question(about=evidence.last_received_at, asked_at=now, asked=asked)
            self._questions[evidence.study_key] = question
            wait((asked,), timeout=_ANSWER_AT_ONCE_S)
        return question

    def _begin_run(
        self, study_key: StudyKey, verdict: Verdict, complete: Collection[StudyKey], now: datetime
    ) -> None:
        study = self._ledger.study(study_key)
        if not study.instances:
            return
        pairing = self._pair(study, complete, now)
        if not pairing.is_ready:
            if study_key not in self._waiting:
                log.info("study_waits", study_key=study_key, reason=pairing.reason)
            self._waiting.add(study_key)
            return
        study = replace(study, partners=tuple(self._ledger.study(key) for key in pairing.partners))
        everything = (study, *study.partners)
        digest = digest_instance_set(tuple(i for member in everything for i in member.instances))
        run_id = name_run(study_key, digest)
        if run_id not in {row.run.run_id for row in self._ledger.runs_of(study_key)}:
            self._reread_partners(study, digest, complete, now)
        folder = self._folder_of(run_id)
        if not folder.exists("study.json"):
            folder.create()
            folder.write_study(study)
        run = self._ledger.begin_next_run(run_id, study_key, digest, self._clock())
        self._submit(run_id, 1)
        self._ledger.mark_assembled(study_key, run_id, pairing.partners)
        self._questions.pop(study_key, None)
        self._waiting.discard(study_key)
        why = f"{verdict.reason}; {pairing.reason}" if pairing.partners else verdict.reason
        log.info(
            "study_complete", study_key=study_key, run_id=run_id, version=run.version,
            instances=len(study.instances), series=len(study.series), reason=why,
        )  # fmt: skip

    def _pair(self, study: Study, complete: Collection[StudyKey], now: datetime) -> PairingDecision:
        """Decide which of the patient's other studies are read with a complete one."""
        if self._pairing.policy is PairingPolicy.OFF:
            return PairingDecision(is_ready=True, reason="studies are not paired")
        own, *others = self._ledger.siblings(study.study_key)
        subject = self._describe(own, complete)
        if not any(need.missing for need in subject.needs):
            others = []
        known = [described for other in others if (described := self._describe_other(other, complete))]
        return decide_pairing(subject, known, self._pairing, now)

    def _describe_other(self, row: SiblingStudy, complete: Collection[StudyKey]) -> PatientStudy | None:
        """Return another study as pairing looks at it; None if its files cannot be read now."""
        try:
            return self._describe(row, complete)
        except PrereadError as exc:
            log.warning("partner_not_looked_at", study_key=row.study_key, error=describe_error(exc))
            return None

    def _describe(self, row: SiblingStudy, complete: Collection[StudyKey]) -> PatientStudy:
        """Return a study as pairing looks at it; its headers are read once per change."""
        known = self._needs.get(row.study_key)
        if known is None or known[0] != row.last_received_at:
            known = (row.last_received_at, self._find_needs(self._ledger.study(row.study_key)))
            self._needs[row.study_key] = known
            while len(self._needs) > _KNOWN_NEEDS:
                self._needs.pop(next(iter(self._needs)))
        return PatientStudy(
            study_key=row.study_key,
            studied_at=row.studied_at,
            last_received_at=row.last_received_at,
            is_complete=not row.is_collecting or row.study_key in complete,
            needs=known[1],
        )

    def _reread_partners(
        self, study: Study, digest: Digest, complete: Collection[StudyKey], now: datetime
    ) -> None:
        """Look again at partners that were read without this study; called before its new run begins.

        One whose last run covers exactly what this run does was read with it; one that is complete in this
        same look sees this study anyway.
        """
        partners = {partner.study_key for partner in study.partners} - set(complete)
        for row in self._ledger.siblings(study.study_key):
            if row.study_key not in partners or row.is_collecting:
                continue
            runs = self._ledger.runs_of(row.study_key)
            if not runs or runs[-1].run.instance_digest != digest:
                self._ledger.collect_again(row.study_key, now)
                log.info("partner_read_again", study_key=row.study_key, reason="its partner study came")

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception as exc:  # noqa: BLE001 - one study must not hold up the others
                log.error("assembler_failed", error=describe_error(exc))
            self._wake.wait(_LOOK_EVERY_S)
            self._wake.clear()
