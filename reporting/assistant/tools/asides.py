"""Pure. The tool that has an installed model read the study beside the run, where a person asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from threading import Event
from typing import Final

from reporting.assistant.evidence import Evidence, EvidenceKind, ToolCall, remark
from reporting.assistant.free_text import clean_free_text
from reporting.assistant.record import AsideState, InstalledModel, StudyRecord
from reporting.assistant.tools.doubts import doubts_of
from reporting.assistant.tools.findings import findings_of
from reporting.assistant.tools.ports import ToolPorts
from reporting.draft.words import end_sentence, join
from reporting.safety import ASIDE_SENTENCE

_NEVER: Final = re.compile(r"(?!)")
_TASK_WORDS: Final[Mapping[str, re.Pattern[str]]] = {
    "segmentation": re.compile(r"\b(?:segment\w*|outline|delineate|contour)\b"),
    "detection": re.compile(r"\bdetect\w*\b"),
    "classification": re.compile(r"\bclassif\w+\b"),
    "fusion": re.compile(r"\bfusion\b"),
}


def run_model(call: ToolCall, record: StudyRecord, ports: ToolPorts, cancel: Event) -> Iterator[Evidence]:
    """Have the model that is asked for read the study, or one series of it, and state what it says."""
    if ports.runner is None:
        yield remark("aside/none", "This site does not let models be run on request.")
        return
    candidates = choose_models(call, record)
    numbers = [line.number for line in record.series]
    series = int(call.get("series")) if call.get("series").isdigit() else None
    if series is not None and series not in numbers:
        yield remark("aside/none", f"The study has no series {series}; it has {join([*map(str, numbers)])}.")
        return
    if len(candidates) != 1:
        names = join([model.reference for model in candidates or record.installed]) or "none"
        yield remark("aside/none", f"Name the model that is to be run. Installed: {names}.")
        return
    reading = ports.runner.read_aside(record.run_id, candidates[0].reference, series, cancel)
    where = f" on series {series}" if series is not None else ""
    if reading.state is not AsideState.DONE or reading.analysis is None:
        state = "is being read" if reading.state is AsideState.UNDERWAY else "could not be read"
        why = clean_free_text(reading.reason, record.identifiers)
        reason = end_sentence(why) if reading.reason else "Ask again later."
        yield remark("aside/none", f"The study {state} by {reading.reference}{where}. {reason}")
        return
    yield Evidence(
        evidence_id=f"aside/{reading.analysis.model.name}",
        kind=EvidenceKind.ASIDE,
        text=f"{reading.reference} was run{where}. {ASIDE_SENTENCE}",
        is_required=True,
    )
    yield from findings_of(reading.analysis, record, None, "", prefix="aside/")
    for doubt in doubts_of(reading.analysis, record):
        yield replace(doubt, evidence_id=f"aside/{doubt.evidence_id}", kind=EvidenceKind.ASIDE)


def choose_models(call: ToolCall, record: StudyRecord) -> list[InstalledModel]:
    """Return the installed models that a request may mean: by name, else by task and what they find."""
    name, request = call.get("model").lower(), call.get("request").lower()
    exact = [m for m in record.installed if name and m.reference.lower() == name]
    if exact:
        return list(exact)
    latest: dict[str, InstalledModel] = {}
    for model in record.installed:
        latest[model.reference.partition("@")[0]] = model
    named = [m for key, m in latest.items() if key.lower() in (name, *re.findall(r"[\w-]+", request))]
    if named:
        return named
    tasks = [m for m in latest.values() if _TASK_WORDS.get(m.task, _NEVER).search(request)]
    return tasks or ([*latest.values()] if len(latest) == 1 else [])
