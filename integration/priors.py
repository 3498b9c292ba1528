"""Adapter: finds earlier studies of the same patient among what this node has read, and compares.

Studies are matched as pairing matches them, by the keyed hash of Patient ID and issuer; what
the models said of them lies in the folders of their runs. What a run was compared with is kept
in its own folder: once it has results, it stays compared with that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import structlog
from pydantic import TypeAdapter
from pydicom.dataset import Dataset

from dicom_node.errors import PrereadError
from dicom_node.headers import read_study_time
from dicom_node.ledger import Ledger, RunRow, RunState
from dicom_node.study import Study, StudyKey
from inference.analysis_files import load_analysis
from inference.findings import Analysis
from integration.observability import describe_error
from integration.run_folder import RunFolder
from reporting.comparison import (
    Comparison,
    Position,
    Prior,
    compare_with_prior,
    describe_changes,
    describe_no_change,
    locate_findings,
)
from reporting.projection import Views
from reporting.text import Sentence

_COMPARISONS: Final = TypeAdapter(tuple[Comparison, ...])
_PLACES: Final = TypeAdapter(dict[str, Position])
_COMPARISONS_FILE: Final = "comparisons.json"
_PLACES_FILE: Final = "places.json"
#: Studies of a patient that are looked at, latest first.
_MOST_STUDIES: Final = 50
_READ: Final = frozenset({RunState.DELIVERING, RunState.DONE})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dated:
    """When a study was acquired: the instant, for order, and the day as it is written, for counting days."""

    at: datetime
    day: date


class PriorStudies:
    """Earlier studies of a patient.

    Parameters
    ----------
    ledger : Ledger
        Knows which studies are of one patient, and their runs.
    folder_of : callable
        Returns the folder of a run.
    """

    def __init__(self, *, ledger: Ledger, folder_of: Callable[[str], RunFolder]) -> None:
        self._ledger = ledger
        self._folder_of = folder_of

    def compare(
        self,
        run_id: str,
        analyses: Sequence[Analysis],
        sources: Mapping[str, Sequence[Dataset]],
        views: Views,
    ) -> tuple[Comparison, ...]:
        """Compare a run with the latest earlier study that each of its models has read, and keep that.

        Parameters
        ----------
        analyses : sequence of Analysis
            What the models said of this study.
        sources : mapping of str to sequence of Dataset
            Headers of the series that were read.
        views : mapping
            How radiographs show the patient.

        Returns
        -------
        tuple of Comparison
            One a prior study, the latest first; empty without one, or if a study has no date.
        """
        folder = self._folder_of(run_id)
        if folder.exists(_COMPARISONS_FILE) and self._ledger.objects_of(run_id):
            return load_comparisons(folder)
        places = {
            name: place
            for analysis in analyses
            for name, place in locate_findings(analysis, sources, views).items()
        }
        comparisons = tuple(self._compare_all(run_id, folder.read_study(), analyses, places))
        folder.write_bytes(_PLACES_FILE, _PLACES.dump_json(places))
        folder.write_bytes(_COMPARISONS_FILE, _COMPARISONS.dump_json(comparisons))
        return comparisons

    def _compare_all(
        self, run_id: str, study: Study, analyses: Sequence[Analysis], places: Mapping[str, Position]
    ) -> Iterator[Comparison]:
        present = _dated(study)
        if present is None:
            return
        wanted = {analysis.model.name for analysis in analyses if not analysis.is_refused}
        study_key = self._ledger.run(run_id).run.study_key
        for found, moment, folder in self._earlier(study_key, study, present):
            said = tuple(a for a in _analyses(folder) if a.model.name in wanted and not a.is_refused)
            if not said:
                continue
            wanted -= {analysis.model.name for analysis in said}
            days = (present.day - moment.day).days
            prior = Prior(run_id=found.run.run_id, days=days, analyses=said, studied_on=moment.day)
            changes = compare_with_prior(analyses, said, days, places=places, prior_places=_places(folder))
            yield Comparison(prior=prior, changes=changes)
            if not wanted:
                return

    def _earlier(
        self, study_key: StudyKey, study: Study, present: _Dated
    ) -> Iterator[tuple[RunRow, _Dated, RunFolder]]:
        """Yield the last finished run of each earlier study that was not read together with this one."""
        together = {partner.study_key for partner in study.partners}
        _, *others = self._ledger.siblings(study_key)
        others.sort(key=lambda other: other.studied_at, reverse=True)
        for other in others[:_MOST_STUDIES]:
            if other.study_key in together:
                continue
            rows = [row for row in self._ledger.runs_of(other.study_key) if row.state in _READ]
            try:
                folder = self._folder_of(rows[-1].run.run_id) if rows else None
                if folder is None or not folder.exists("study.json"):
                    continue
                moment = _dated(folder.read_study())
            except PrereadError as exc:
                log.warning("prior_not_looked_at", study_key=other.study_key, error=describe_error(exc))
                continue
            if moment is not None and moment.at < present.at:
                yield rows[-1], moment, folder


def load_comparisons(folder: RunFolder) -> tuple[Comparison, ...]:
    """Return what a run was compared with; nothing if it was not."""
    if not folder.exists(_COMPARISONS_FILE):
        return ()
    return _COMPARISONS.validate_json((folder.path / _COMPARISONS_FILE).read_bytes())


def describe_comparisons(comparisons: Sequence[Comparison], views: Views) -> tuple[Sentence, ...]:
    """Return what changed since each prior study, in sentences without dates."""
    return tuple(
        sentence
        for comparison in comparisons
        for sentence in (
            describe_changes(comparison.changes, views) or describe_no_change(comparison.prior.days)
        )
    )


def _analyses(folder: RunFolder) -> list[Analysis]:
    """Return what the models said in an earlier run; what cannot be read any more is left out."""
    loaded = []
    for path in sorted(folder.path.glob("reading-*.json")):
        try:
            answer = folder.read_json(path.name)
            loaded += [load_analysis(folder.path / answer["analysis"])] if "analysis" in answer else []
        except PrereadError as exc:
            log.warning("prior_not_looked_at", error=describe_error(exc))
    return loaded


def _places(folder: RunFolder) -> dict[str, Position]:
    if not folder.exists(_PLACES_FILE):
        return {}
    return _PLACES.validate_json((folder.path / _PLACES_FILE).read_bytes())


def _dated(study: Study) -> _Dated | None:
    """Return when a study was acquired by its headers; one without a date is neither earlier nor later."""
    for series in study.series:
        told = read_study_time(series.header)
        if told is not None:
            day = datetime.strptime(series.header["StudyDate"], "%Y%m%d").replace(tzinfo=UTC).date()
            return _Dated(at=told, day=day)
    return None
