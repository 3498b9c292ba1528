"""Pure. The tools of the assistant: the node's own results and sources, as statements that can be cited.

The ports stand here beside their consumer; adapters are in ``integration/assistant.py``.
A tool adds no words of its own to what the draft, the comparison or a source says, but
where there is nothing to say. Free text that was not made from findings (notes, doubts,
passages) is taken in without identifiers, and left out where it reads as an instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Final, Protocol

from inference.findings import Analysis, Finding, Laterality, Presence
from reporting import codes
from reporting.assistant.evidence import Evidence, EvidenceKind, ToolCall, ToolName, ToolResult
from reporting.assistant.identifiers import redact
from reporting.assistant.instructions import reads_as_instruction, strip_invisible
from reporting.assistant.record import (
    AsideReading,
    AsideState,
    InstalledModel,
    LookedAt,
    Relation,
    StudyRecord,
)
from reporting.assistant.rules import read_table
from reporting.comparison import Comparison, describe_changes, describe_no_change
from reporting.draft.findings import describe_estimate, describe_findings
from reporting.draft.kinds import name_finding, number_titles, present
from reporting.draft.procedure import describe_procedure
from reporting.draft.words import capitalise, describe_sizes, end_sentence, join
from reporting.language.knowledge_graph import ASSOCIATION_NOTICE
from reporting.projection import locate
from reporting.safety import (
    ABSENCE_SENTENCE,
    ASIDE_SENTENCE,
    ASSISTANT_SCOPE,
    HEATMAP_SENTENCE,
    LEFT_OUT_SENTENCE,
    describe_doubt,
    describe_triage,
)

#: Longest quotation, in characters: what a reader takes in beside the images.
_LONGEST_QUOTE: Final = 700
_MOST_PASSAGES: Final = 3
_MOST_RELATIONS: Final = 9
_MOST_PRIORS: Final = 3


class PriorStudies(Protocol):
    """Earlier studies of the same patient that this node read, compared with the run's."""

    def comparisons_of(self, run_id: str) -> Sequence[Comparison]:
        """Return them, the latest first; empty if there are none or they are not known."""
        ...


class FoundPassage(Protocol):
    """A piece of a text that the site added, word for word (`reporting.language.passages.Passage`)."""

    @property
    def passage_id(self) -> str:
        """Unique in the library."""
        ...

    @property
    def title(self) -> str:
        """Name of the text, and the heading that the passage stands under."""
        ...

    @property
    def source(self) -> str:
        """Where the text is from."""
        ...

    @property
    def licence(self) -> str:
        """On what terms it may be quoted."""
        ...

    @property
    def text(self) -> str:
        """The words."""
        ...


class Library(Protocol):
    """The texts that the site added."""

    def search(self, query: str, limit: int) -> Sequence[FoundPassage]:
        """Return the passages that fit best, best first."""
        ...


class KnowledgeGraph(Protocol):
    """What findings and diseases have to do with each other."""

    def related(self, concepts: Sequence[str]) -> Sequence[Relation]:
        """Return what is near to findings (keys of ``codes.py``), the nearest first."""
        ...


class ModelRunner(Protocol):
    """Runs installed models on series of a run's study, one at a time, beside the run."""

    def read_aside(self, run_id: str, reference: str, series: int | None, cancel: Event) -> AsideReading:
        """Let a model (``name@version``) read the study, or one series of it; wait a bounded time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPorts:
    """What the tools ask; a site without one of them has a tool that says so."""

    priors: PriorStudies | None = None
    library: Library | None = None
    graph: KnowledgeGraph | None = None
    runner: ModelRunner | None = None


def call_tool(call: ToolCall, record: StudyRecord, ports: ToolPorts, cancel: Event) -> ToolResult:
    """Return what a tool says of a run.

    Raises
    ------
    PrereadError
        If a port could not answer.
    """
    evidence = tuple(_TOOLS[call.tool](call, record, ports, cancel))
    return ToolResult(call=call, evidence=evidence)


# -- findings -----------------------------------------------------------------------------------


def _findings(call: ToolCall, record: StudyRecord, _ports: ToolPorts, _cancel: Event) -> Iterator[Evidence]:
    wanted = _wanted(call, record)
    if not call.get("other"):
        for analysis in record.analyses:
            yield from _findings_of(analysis, record, wanted, call.get("side"))
    yield from _say_what_is_sought(call, record, wanted)
    for analysis in record.analyses:
        if wanted is None or any(f.concept in wanted for f in analysis.findings):
            yield from _doubts_of(analysis, record)


def _findings_of(
    analysis: Analysis, record: StudyRecord, wanted: frozenset[str] | None, side: str, prefix: str = ""
) -> Iterator[Evidence]:
    who = _attribution(record)(analysis)
    drafted = describe_findings(replace(analysis, doubts=(), estimates=()), record.views)
    for finding in _chosen(analysis, wanted, side, record):
        if finding.presence is not Presence.PRESENT and wanted is None:
            continue
        name = name_finding(analysis, finding)
        if finding.presence is Presence.PRESENT:
            sentences = [s.text for s in drafted if s.finding_ids == (name,)]
        else:
            alone = replace(analysis, findings=(finding,), doubts=(), estimates=())
            sentences = [s.text for s in describe_findings(alone, record.views)]
            if finding.presence is Presence.ABSENT:
                sentences.append(ABSENCE_SENTENCE)
        yield Evidence(
            evidence_id=f"{prefix}{name}",
            kind=EvidenceKind.ASIDE if prefix else EvidenceKind.FINDING,
            text=f"{who}{' '.join(sentences)}",
            finding_ids=() if prefix else (name,),
        )
    if wanted is None:
        yield from _others_of(analysis, record, who, prefix)
    yield from _estimates_of(analysis, who, wanted, prefix)


def _others_of(analysis: Analysis, record: StudyRecord, who: str, prefix: str) -> Iterator[Evidence]:
    """Yield what is absent or undetermined, all together, as the draft says it."""
    rest = tuple(f for f in analysis.findings if f.presence is not Presence.PRESENT)
    if analysis.is_refused:
        return
    if rest or (not analysis.findings and not analysis.estimates):
        others = replace(analysis, findings=rest, doubts=(), estimates=())
        names = tuple(name_finding(analysis, finding) for finding in rest)
        yield Evidence(
            evidence_id=f"{prefix}{analysis.model.name}/others",
            kind=EvidenceKind.ASIDE if prefix else EvidenceKind.FINDING,
            text=f"{who}{' '.join(s.text for s in describe_findings(others, record.views))}",
            finding_ids=() if prefix else names,
        )


def _estimates_of(
    analysis: Analysis, who: str, wanted: frozenset[str] | None, prefix: str
) -> Iterator[Evidence]:
    if analysis.is_refused or (wanted is not None and not wanted & _ESTIMATED):
        return
    for estimate in analysis.estimates:
        yield Evidence(
            evidence_id=f"{prefix}{analysis.model.name}/{estimate.scale.value}",
            kind=EvidenceKind.ASIDE if prefix else EvidenceKind.ESTIMATE,
            text=f"{who}{' '.join(describe_estimate(estimate))}",
        )


def _say_what_is_sought(
    call: ToolCall, record: StudyRecord, wanted: frozenset[str] | None
) -> Iterator[Evidence]:
    """Yield what the algorithms look for, where they do not look for what was asked."""
    reported = {f.concept for analysis in record.analyses for f in analysis.findings}
    if call.get("other") or (wanted is not None and not wanted & reported):
        for analysis in record.analyses:
            yield _sought_by(analysis, record)


def _sought_by(analysis: Analysis, record: StudyRecord) -> Evidence:
    concepts = record.sought.get(analysis.model.name, ()) or tuple(f.concept for f in analysis.findings)
    nouns = list(dict.fromkeys(codes.code_finding(concept).noun for concept in concepts))
    model = analysis.model
    what = f"looks for {join(nouns)}, and for nothing else" if nouns else "estimates, and marks no finding"
    return Evidence(
        evidence_id=f"{model.name}/sought",
        kind=EvidenceKind.PROCEDURE,
        text=f"The algorithm {model.name}, version {model.version}, {what}. {_SILENCE}",
    )


# -- measurements -------------------------------------------------------------------------------


def _measurements(
    call: ToolCall, record: StudyRecord, _ports: ToolPorts, _cancel: Event
) -> Iterator[Evidence]:
    wanted, is_any = _wanted(call, record), False
    for analysis in record.analyses:
        titles = number_titles(present(analysis.findings))
        for finding in _chosen(analysis, wanted, call.get("side"), record):
            sizes = describe_sizes(finding)
            if finding.presence is Presence.PRESENT and sizes and not analysis.is_refused:
                is_any = True
                name, who = name_finding(analysis, finding), _attribution(record)(analysis)
                yield Evidence(
                    evidence_id=name,
                    kind=EvidenceKind.MEASUREMENT,
                    text=f"{who}{titles[finding.finding_id]} measures {join(sizes)}.",
                    finding_ids=(name,),
                )
    if not is_any:
        yield _remark("measurements/none", "Nothing of what was asked for was measured in this study.")
        yield from _findings(call, record, _ports, _cancel)
        return
    for analysis in record.analyses:
        if wanted is None or any(f.concept in wanted for f in analysis.findings):
            yield from _doubts_of(analysis, record)


# -- where it looked, and what must be doubted --------------------------------------------------


def _where(call: ToolCall, record: StudyRecord, _ports: ToolPorts, _cancel: Event) -> Iterator[Evidence]:
    aspect = call.get("aspect")
    if aspect in {"", "attention"}:
        yield from _attention(call, record)
    if aspect in {"", "triage"}:
        yield from _triage(record)
    if aspect in {"", "doubts"}:
        said = [item for analysis in record.analyses for item in _doubts_of(analysis, record, is_all=True)]
        yield from said or [
            _remark("doubts/none", "The algorithms state no doubt about their answers in this study.")
        ]


def _attention(call: ToolCall, record: StudyRecord) -> Iterator[Evidence]:
    wanted = _wanted(call, record)
    chosen = [one for one in record.looked_at if wanted is None or _concept_of(one, record) in wanted]
    for one in chosen or record.looked_at:
        name = f"{one.model}/{one.answer}"
        yield Evidence(
            evidence_id=f"{one.model}/heatmap/{one.answer}",
            kind=EvidenceKind.ATTENTION,
            text=f"{_describe_attention(one, record)} {HEATMAP_SENTENCE}",
            finding_ids=(name,) if _concept_of(one, record) else (),
        )
    if not record.looked_at:
        yield _remark("heatmaps/none", "No heat map was made in this study.")


def _describe_attention(one: LookedAt, record: StudyRecord) -> str:
    concept = _concept_of(one, record)
    answer = codes.code_finding(concept).label if concept else one.answer.replace("_", " ")
    where = f"image {one.image} of {one.images}" if one.images > 1 else "the image"
    side = {Laterality.LEFT: "left side", Laterality.RIGHT: "right side", Laterality.BILATERAL: "both sides"}
    parts = [side[one.place.side]] if one.place.side else []
    parts += [f"{one.place.zone.value} zone"] if one.place.zone else []
    place = f", {', '.join(parts)}" if parts else ""
    return (
        f"For its answer {answer} the network {one.model} looked most at {where}{place}; the strongest "
        f"region covers {100 * one.share:.0f} % of that image."
    )


def _triage(record: StudyRecord) -> Iterator[Evidence]:
    stated = [a for a in record.analyses if a.triage is not None and not a.is_refused]
    for analysis in stated:
        assert analysis.triage is not None
        yield Evidence(
            evidence_id=f"{analysis.model.name}/triage",
            kind=EvidenceKind.TRIAGE,
            text=f"{_attribution(record)(analysis)}{describe_triage(analysis.triage)}",
        )
    if not stated:
        yield _remark("triage/none", "No algorithm of this run states how urgent the study is.")


def _doubts_of(analysis: Analysis, record: StudyRecord, *, is_all: bool = False) -> Iterator[Evidence]:
    """Yield the doubts of a model, and its notes where all is asked for."""
    who = f"{analysis.model.name}: "
    texts = [(f"doubt{n}", describe_doubt(doubt), True) for n, doubt in enumerate(analysis.doubts, 1)]
    if is_all:
        notes = enumerate(analysis.notes, 1)
        texts += [(f"note{n}", capitalise(end_sentence(note)), False) for n, note in notes]
    for name, text, is_required in texts:
        clean = _clean(text, record)
        yield Evidence(
            evidence_id=f"{analysis.model.name}/{name}",
            kind=EvidenceKind.DOUBT if clean else EvidenceKind.REMARK,
            text=f"{who}{clean}" if clean else LEFT_OUT_SENTENCE,
            is_required=is_required,
        )


# -- procedure ----------------------------------------------------------------------------------


def _procedure(call: ToolCall, record: StudyRecord, _ports: ToolPorts, _cancel: Event) -> Iterator[Evidence]:
    if call.get("help"):
        yield _remark("assistant/scope", ASSISTANT_SCOPE)
    for analysis in record.analyses:
        quiet = replace(analysis, notes=())  # notes are doubts here, and free text
        sentences = describe_procedure([quiet], record.views, has_heatmaps=False)
        yield Evidence(
            evidence_id=f"{analysis.model.name}/procedure",
            kind=EvidenceKind.PROCEDURE,
            text=" ".join(sentence.text for sentence in sentences),
        )
        yield _sought_by(analysis, record)


# -- priors -------------------------------------------------------------------------------------


def _priors(call: ToolCall, record: StudyRecord, ports: ToolPorts, _cancel: Event) -> Iterator[Evidence]:
    comparisons = ports.priors.comparisons_of(record.run_id) if ports.priors else ()
    if not comparisons:
        yield _remark("priors/none", "This study was compared with no earlier study of this patient.")
        return
    wanted = _wanted(call, record)
    for number, one in enumerate(comparisons[:_MOST_PRIORS], 1):
        asked = tuple(change for change in one.changes if wanted is None or change.concept in wanted)
        sentences = describe_changes(asked, record.views) or describe_no_change(one.prior.days)
        for line, sentence in enumerate(sentences, 1):
            yield Evidence(
                evidence_id=f"prior-{number}/{line}",
                kind=EvidenceKind.PRIOR,
                text=sentence.text,
                finding_ids=sentence.finding_ids,
                is_required=not sentence.finding_ids and line > 1,
            )


# -- sources ------------------------------------------------------------------------------------


def _retrieve(call: ToolCall, record: StudyRecord, ports: ToolPorts, _cancel: Event) -> Iterator[Evidence]:
    if ports.library is None:
        yield _remark("sources/none", "This site has added no texts that could be quoted.")
        return
    query = call.get("query")
    found = ports.library.search(query, 2 * _MOST_PASSAGES)
    fitting = [passage for passage in found if _shares_words(query, f"{passage.title} {passage.text}")]
    names: set[str] = set()
    for number, passage in enumerate(fitting[:_MOST_PASSAGES], 1):
        clean, title = _clean(passage.text, record), _clean(passage.title, record)
        name = f"source/{_name_passage(passage, record)}"
        name = f"{name}-{number}" if name in names else name
        names.add(name)
        if not clean or not title:
            yield _remark(name, LEFT_OUT_SENTENCE)
            continue
        yield Evidence(
            evidence_id=name,
            kind=EvidenceKind.PASSAGE,
            text=_shorten(clean),
            source=f"{title}, {_clean(passage.source, record) or 'source not named'}",
            licence=_clean(passage.licence, record) or "licence not stated",
        )
    if not fitting:
        yield _remark("sources/none", "The site's sources hold nothing on this question.")


def _name_passage(passage: FoundPassage, record: StudyRecord) -> str:
    """Return the id by which a passage is cited: the library's, without identifiers."""
    document, mark, place = passage.passage_id.rpartition("#")
    if not place.isdecimal():
        document, mark, place = passage.passage_id, "", ""
    return f"{_clean(document, record).replace(' ', '-') or 'unnamed'}{mark}{place}"


def _related(call: ToolCall, record: StudyRecord, ports: ToolPorts, _cancel: Event) -> Iterator[Evidence]:
    if ports.graph is None:
        yield _remark("graph/none", "This site has no knowledge graph.")
        return
    concepts = sorted(
        _wanted(call, record) or {f.concept for a in record.analyses for f in present(a.findings)}
    )
    relations = ports.graph.related(concepts) if concepts else ()
    if relations:
        yield replace(_remark("graph/notice", ASSOCIATION_NOTICE), is_required=True)
    for number, one in enumerate(relations[:_MOST_RELATIONS], 1):
        text, source = _clean(one.text, record), _clean(one.source, record)
        if not text or not source:
            yield _remark(f"graph/{number}", LEFT_OUT_SENTENCE)
            continue
        yield Evidence(
            evidence_id=f"graph/{number}",
            kind=EvidenceKind.RELATION,
            text=capitalise(end_sentence(text)),
            source=source,
            licence=_clean(one.licence, record),
        )
    if not relations:
        yield _remark("graph/none", "The knowledge graph holds nothing on this question.")


# -- running a model ----------------------------------------------------------------------------


def _run_model(call: ToolCall, record: StudyRecord, ports: ToolPorts, cancel: Event) -> Iterator[Evidence]:
    if ports.runner is None:
        yield _remark("aside/none", "This site does not let models be run on request.")
        return
    candidates = choose_models(call, record)
    numbers = [line.number for line in record.series]
    series = int(call.get("series")) if call.get("series").isdigit() else None
    if series is not None and series not in numbers:
        yield _remark("aside/none", f"The study has no series {series}; it has {join([*map(str, numbers)])}.")
        return
    if len(candidates) != 1:
        names = join([model.reference for model in candidates or record.installed]) or "none"
        yield _remark("aside/none", f"Name the model that is to be run. Installed: {names}.")
        return
    reading = ports.runner.read_aside(record.run_id, candidates[0].reference, series, cancel)
    where = f" on series {series}" if series is not None else ""
    if reading.state is not AsideState.DONE or reading.analysis is None:
        state = "is being read" if reading.state is AsideState.UNDERWAY else "could not be read"
        reason = end_sentence(_clean(reading.reason, record)) if reading.reason else "Ask again later."
        yield _remark("aside/none", f"The study {state} by {reading.reference}{where}. {reason}")
        return
    yield Evidence(
        evidence_id=f"aside/{reading.analysis.model.name}",
        kind=EvidenceKind.ASIDE,
        text=f"{reading.reference} was run{where}. {ASIDE_SENTENCE}",
        is_required=True,
    )
    yield from _findings_of(reading.analysis, record, None, "", prefix="aside/")
    for doubt in _doubts_of(reading.analysis, record):
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


# -- what tools share ---------------------------------------------------------------------------


def _remark(evidence_id: str, text: str) -> Evidence:
    return Evidence(evidence_id=evidence_id, kind=EvidenceKind.REMARK, text=text)


def _wanted(call: ToolCall, record: StudyRecord) -> frozenset[str] | None:
    """Return the findings asked for; of several that a word may mean those that the run speaks of."""
    asked = frozenset(filter(None, call.get("concepts").split(",")))
    if not asked:
        return None
    known = {f.concept for analysis in record.analyses for f in analysis.findings}
    return asked & known or asked


def _chosen(
    analysis: Analysis, wanted: frozenset[str] | None, side: str, record: StudyRecord
) -> list[Finding]:
    """Return the findings asked for; a side narrows them only where it leaves any."""
    chosen = [f for f in analysis.findings if wanted is None or f.concept in wanted]
    sided = [f for f in chosen if side and _side_of(f, record) in {side, Laterality.BILATERAL.value}]
    return sided or chosen


def _side_of(finding: Finding, record: StudyRecord) -> str:
    side = finding.laterality or (locate(finding.box, record.views).side if finding.box else None)
    return "" if side is None else side.value


def _concept_of(one: LookedAt, record: StudyRecord) -> str:
    return next(
        (
            finding.concept
            for analysis in record.analyses
            for finding in analysis.findings
            if (analysis.model.name, finding.finding_id) == (one.model, one.answer)
        ),
        "",
    )


def _attribution(record: StudyRecord) -> Callable[[Analysis], str]:
    """Return how a sentence names its algorithm: not at all where there is one."""
    return lambda analysis: f"{analysis.model.name}: " if len(record.analyses) > 1 else ""


def _clean(text: str, record: StudyRecord) -> str:
    """Return free text without identifiers and hidden characters; nothing if it is an instruction."""
    plain = " ".join(strip_invisible(text).split())
    return "" if reads_as_instruction(text) else redact(plain, record.identifiers)


def _shorten(text: str) -> str:
    """Return the first sentences of a quotation, as many as fit."""
    if len(text) <= _LONGEST_QUOTE:
        return text
    cut = text[:_LONGEST_QUOTE]
    end = max(cut.rfind(mark) for mark in (". ", "! ", "? "))
    return cut[: end + 1] if end > 0 else f"{cut.rsplit(' ', 1)[0]} ..."


def _shares_words(query: str, text: str) -> bool:
    """Say whether a passage has a word of substance in common with the question."""
    stems = {word[:_STEM] for word in re.findall(r"[a-z]{4,}", query.lower()) if word not in _EMPTY_WORDS}
    return any(word[:_STEM] in stems for word in re.findall(r"[a-z]{4,}", text.lower()))


_STEM: Final = 6
_EMPTY_WORDS: Final = frozenset(read_table("vocabulary")["empty"].split())
_SILENCE: Final = "What is not looked for may be there all the same."
_ESTIMATED: Final = frozenset({"neoplasm", "tumour"})
_NEVER: Final = re.compile(r"(?!)")
_TASK_WORDS: Final[Mapping[str, re.Pattern[str]]] = {
    "segmentation": re.compile(r"\b(?:segment\w*|outline|delineate|contour)\b"),
    "detection": re.compile(r"\bdetect\w*\b"),
    "classification": re.compile(r"\bclassif\w+\b"),
    "fusion": re.compile(r"\bfusion\b"),
}
_TOOLS: Final[Mapping[ToolName, Callable[[ToolCall, StudyRecord, ToolPorts, Event], Iterator[Evidence]]]] = {
    ToolName.FINDINGS: _findings,
    ToolName.MEASUREMENTS: _measurements,
    ToolName.WHERE_DID_IT_LOOK: _where,
    ToolName.PROCEDURE: _procedure,
    ToolName.PRIORS: _priors,
    ToolName.RETRIEVE: _retrieve,
    ToolName.RELATED: _related,
    ToolName.RUN_MODEL: _run_model,
}
