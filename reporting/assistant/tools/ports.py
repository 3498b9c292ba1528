"""Pure. What the tools ask of the node and the site; adapters are in ``integration/assistant_*.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from reporting.assistant.record import AsideReading, Relation
from reporting.comparison import Comparison


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
