"""Adapter: reads problems out of notes by medspacy: target rules, ConText and section rules; no network.

medspacy (Eyre et al., arXiv 2106.07799) carries the ConText algorithm (Harkema et al.,
J Biomed Inform 2009;42:839) and sentence rules; ``lexicon.yaml`` says what is looked
for and ``rules.yaml`` what radiology orders need besides. Its sentence splitter logs
the text that it splits, which is switched off here before it can.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import yaml

from reporting.clinical.lexicon import Lexicon, ProblemKind, load_lexicon
from reporting.clinical.problem import ClinicalProblem, Experiencer, Polarity, SourceText, Time
from reporting.errors import ReportingError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Span

#: Characters of one text that are read; an order has hundreds, a discharge letter thousands.
MAX_CHARACTERS: Final = 20_000

_IGNORED: Final = "ignored"
#: What a category of ConText, and a heading, says of the problems in its scope.
_CONTEXT: Final = {
    "NEGATED_EXISTENCE": {"is_negated": True},
    "POSSIBLE_EXISTENCE": {"is_uncertain": True},
    "ASKED": {"is_asked": True},
    "AFFIRMED": {"is_affirmed": True},
    "HISTORICAL": {"is_historical": True},
    "HYPOTHETICAL": {"is_hypothetical": True},
    "FAMILY": {"is_family": True},
}
_SECTIONS: Final = {
    "past": {"is_historical": True},
    "past_medical_history": {"is_historical": True},
    "family": {"is_family": True},
    "family_history": {"is_family": True},
    "question": {"is_asked": True},
    "plan": {"is_hypothetical": True},
    "patient_instructions": {"is_hypothetical": True},
    "patient_education": {"is_hypothetical": True},
}
#: Headings under which nothing is a problem of the patient.
_SKIPPED_SECTIONS: Final = frozenset({"technique", "signature", "comparison", "other"})
#: Headings that medspacy reads as the past: in an order they head the complaint of today.
_HEADINGS_OF_TODAY: Final = frozenset({"history:", "clinical history:"})
_MARKS: Final = (
    "is_affirmed",
    "is_negated",
    "is_uncertain",
    "is_asked",
    "is_historical",
    "is_hypothetical",
    "is_family",
)
#: What a referrer rarely asks about: the complaint is why the question is put.
_COMPLAINTS: Final = frozenset({ProblemKind.SYMPTOM, ProblemKind.EXPOSURE})
_DOUBTS: Final = frozenset({"ASKED", "POSSIBLE_EXISTENCE"})
#: Tokens between a cue of doubt and a complaint that it still reaches.
_NEXT: Final = 2
_COMMAS: Final = frozenset({",", ";"})
#: A line that ends or begins so goes on.
_GOES_ON: Final = frozenset(
    {",", "and", "or", "of", "for", "with", "no", "to", "the", "a", "in", "without", "&"}
)
_NEVER_STARTS: Final = frozenset({",", "and", "or", "&", "with", "for"})


class NoteReaderError(ReportingError):
    """The clinical NLP library is not installed."""


class NoteReader:
    """Reads problems out of free text.

    Loading takes seconds and 200 MB, reading a note milliseconds; one reader serves a process.

    Raises
    ------
    NoteReaderError
        If medspacy is not installed.
    """

    def __init__(self, lexicon: Lexicon | None = None) -> None:
        self._lexicon = lexicon or load_lexicon()
        self._lock = threading.Lock()
        self._nlp = _build_language(self._lexicon)

    def read(self, source: SourceText) -> tuple[ClinicalProblem, ...]:
        """Return the problems of a text in the order in which they stand.

        Parameters
        ----------
        source : SourceText
            Any text; what lies behind `MAX_CHARACTERS` is not read.

        Returns
        -------
        tuple of ClinicalProblem
            Equal texts give equal problems.
        """
        text = _same_length(source.text[:MAX_CHARACTERS])
        if not text.strip():
            return ()
        with self._lock:  # spaCy pipelines with extensions are not safe to share between threads
            doc = self._nlp(text)
        return tuple(self._problems(doc, source))

    def _problems(self, doc: Doc, source: SourceText) -> Iterator[ClinicalProblem]:
        for entity in doc.ents:
            if entity.label_ == _IGNORED or entity._.section_category in _SKIPPED_SECTIONS:
                continue
            is_purpose = self._lexicon.entries[entity.label_].kind is ProblemKind.PURPOSE
            marks = {mark for mark in _MARKS if getattr(entity._, mark)}
            is_asked = "is_asked" in marks or _is_followed_by_question_mark(entity)
            yield ClinicalProblem(
                concept=entity.label_,
                text=entity._.target_rule.literal,
                polarity=_polarity(marks, is_asked=is_asked),
                time=Time.CURRENT if is_purpose else _time(marks, is_asked=is_asked),
                experiencer=Experiencer.FAMILY if "is_family" in marks else Experiencer.PATIENT,
                is_asked=is_asked and not marks & {"is_negated", "is_affirmed"},
                source=source.kind,
                origin=source.origin,
                span=(entity.start_char, entity.end_char),
            )


def _polarity(marks: set[str], *, is_asked: bool) -> Polarity:
    if "is_affirmed" in marks:
        return Polarity.PRESENT
    if "is_negated" in marks:
        return Polarity.NEGATED
    if is_asked or "is_uncertain" in marks:
        return Polarity.UNCERTAIN
    return Polarity.PRESENT


def _time(marks: set[str], *, is_asked: bool) -> Time:
    if "is_hypothetical" in marks and not is_asked:
        return Time.PLANNED
    return Time.HISTORICAL if "is_historical" in marks else Time.CURRENT


def _is_followed_by_question_mark(entity: Span) -> bool:
    """Say whether a question mark stands right behind a problem: ``pneumonia?``."""
    end = entity.end
    return (
        end < len(entity.doc) and entity.doc[end].text.startswith("?") and not entity.doc[end - 1].whitespace_
    )


def _same_length(text: str) -> str:
    """Return ``text`` with odd characters made plain, one for one, so that spans stay true."""
    return re.sub(
        r"[\u2018\u2019\u02bc]", "'", re.sub(r"[\u2010-\u2015\u2212]", "-", text.replace("\x00", " "))
    )


def _build_language(lexicon: Lexicon) -> Language:
    try:
        from loguru import logger

        logger.disable("PyRuSH")  # it logs the sentences of the note
        import medspacy.context
        import medspacy.section_detection
        import medspacy.sentence_splitting
        import medspacy.target_matcher  # noqa: F401 - these four register their components
        import spacy
        from medspacy.custom_tokenizer import create_medspacy_tokenizer
        from spacy.language import Language as SpacyLanguage
        from spacy.tokens import Span as SpacySpan
    except ImportError as exc:
        raise NoteReaderError(
            "Clinical notes need medspacy: install preread[language] and then "
            "`pip install --no-deps --requirement no-deps.txt`."
        ) from exc
    if not SpacyLanguage.has_factory(_LINES):
        SpacyLanguage.component(_LINES, func=_split_at_lines)
    for mark in _MARKS:
        if not SpacySpan.has_extension(mark):
            SpacySpan.set_extension(mark, default=False)
    table = yaml.safe_load((files(__package__) / "rules.yaml").read_text(encoding="utf-8"))
    nlp = spacy.blank("en")
    nlp.tokenizer = create_medspacy_tokenizer(nlp)
    targets: Any = nlp.create_pipe("medspacy_target_matcher", config={"rules": None})
    context: Any = nlp.create_pipe(
        "medspacy_context",
        config={"rules": None, "span_attrs": _CONTEXT, "terminating_types": table["ended_by"]},
    )
    sections: Any = nlp.create_pipe("medspacy_sectionizer", config={"rules": None, "span_attrs": _SECTIONS})
    targets.add(_target_rules(lexicon))
    context.add(_context_rules(table, context.DEFAULT_RULES_FILEPATH, lexicon))
    sections.add(_section_rules(table, sections.DEFAULT_RULES_FILEPATH))
    nlp.add_pipe("medspacy_pyrush")
    nlp.add_pipe(_LINES)
    for name, component in (("targets", targets), ("context", context), ("sections", sections)):
        _attach(nlp, name, component)
    return nlp


_LINES: Final = "preread_lines"


def _attach(nlp: Language, name: str, component: Any) -> None:
    """Put a component that already has its rules at the end of the pipeline."""
    from spacy.language import Language as SpacyLanguage

    factory = f"preread_{name}"
    SpacyLanguage.component(factory, func=component)
    nlp.add_pipe(factory)


def _split_at_lines(doc: Doc) -> Doc:
    """Begin a sentence after a line break, unless the line goes on."""
    for token in doc[1:]:
        before = doc[token.i - 1]
        if "\n" not in before.text and "\r" not in before.text:
            continue
        last = doc[before.i - 1].lower_ if before.i else ""
        is_wrapped = before.text.count("\n") < _EMPTY_LINE and (
            last in _GOES_ON or token.lower_ in _NEVER_STARTS
        )
        token.is_sent_start = not is_wrapped
    return doc


_EMPTY_LINE: Final = 2


def _target_rules(lexicon: Lexicon) -> list[Any]:
    from medspacy.ner import TargetRule

    rules = [TargetRule(literal=phrase, category=_IGNORED) for phrase in lexicon.ignored]
    for entry in lexicon.entries.values():
        rules += [TargetRule(literal=phrase, category=entry.key) for phrase in entry.spellings]
        rules += [
            TargetRule(literal=phrase, category=entry.key, attributes={"is_negated": True})
            for phrase in entry.absent
        ]
        rules += [
            TargetRule(literal=word, category=entry.key, pattern=[{"ORTH": word}]) for word in entry.exact
        ]
    return rules


def _context_rules(table: dict[str, Any], default_rules: str, lexicon: Lexicon) -> list[Any]:
    from medspacy.context import ConTextRule

    reach = _Reach(lexicon, frozenset(table["takes_as_given"]))
    own = [
        ConTextRule(
            literal=phrase,
            category=category,
            direction=direction,
            max_scope=scope,
            max_targets=1 if phrase == "?" else None,
            on_modifies=reach.of(category, is_bounded=scope is not None),
        )
        for phrase, category, direction, scope in table["context"]
    ]
    # Of two rules for one phrase the matcher keeps one, so that ours must be the only one.
    replaced = {*table["dropped"], *(phrase for phrase, *_ in table["context"])}
    default = [rule for rule in ConTextRule.from_json(default_rules) if rule.literal not in replaced]
    for rule in default:
        rule.on_modifies = reach.of(rule.category, is_bounded=False)
    return [*default, *own]


class _Reach:
    """Whether a cue reaches a problem within its scope."""

    def __init__(self, lexicon: Lexicon, given: frozenset[str]) -> None:
        kinds = {key: entry.kind for key, entry in lexicon.entries.items()}
        self._complaints = {key for key, kind in kinds.items() if kind in _COMPLAINTS}
        self._findings = {key for key, kind in kinds.items() if kind is ProblemKind.FINDING}
        self._given = given

    def of(self, category: str, *, is_bounded: bool) -> Callable[[Span, Span, Span], bool] | None:
        """Return the test for cues of a category; None if they reach all of their scope."""
        if category in _DOUBTS:
            return self._is_in_doubt
        return _is_before_comma if is_bounded else None

    def _is_in_doubt(self, target: Span, cue: Span, _between: Span) -> bool:
        is_complaint = target.label_ in self._complaints
        if cue.text.lower() in self._given and (is_complaint or target.label_ in self._findings):
            return False
        return not is_complaint or (_distance(target, cue) <= _NEXT and _is_before_comma(target, cue, cue))


def _is_before_comma(target: Span, cue: Span, _between: Span) -> bool:
    start, end = sorted((target, cue), key=lambda span: span.start)
    return not any(token.text in _COMMAS for token in target.doc[start.end : end.start])


def _distance(target: Span, cue: Span) -> int:
    """Return the number of tokens between two spans."""
    start, end = sorted((target, cue), key=lambda span: span.start)
    return int(end.start - start.end)


def _section_rules(table: dict[str, Any], default_rules: str) -> list[Any]:
    from medspacy.section_detection import SectionRule

    # As token patterns: a matcher without any warns at every note.
    own = [
        SectionRule(
            literal=heading,
            category=category,
            pattern=[{"LOWER": token.lower()} for token in re.findall(r"\w+|[^\w\s]", heading)],
        )
        for heading, category in table["sections"]
    ]
    replaced = {heading.lower() for heading, _ in table["sections"]} | _HEADINGS_OF_TODAY
    default = [rule for rule in SectionRule.from_json(default_rules) if rule.literal.lower() not in replaced]
    return [*default, *own]


def read_all(reader: NoteReader, sources: Iterable[SourceText]) -> tuple[ClinicalProblem, ...]:
    """Return the problems of several texts, one after the other."""
    return tuple(problem for source in sources for problem in reader.read(source))
