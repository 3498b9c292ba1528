"""Pure. The text of a report as values: sentences that name the findings they rest on.

Every text that Preread shows or sends is a `ReportText`, whoever wrote it; its
provenance says who did. The objects of ``narrative_sr.py`` and ``fhir.py`` are made
from it and add no words of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from reporting.safety import BANNER


class SectionName(StrEnum):
    """The sections, in the order in which they are read."""

    PRIORITY = "priority"
    CLINICAL = "clinical_information"
    PROCEDURE = "procedure"
    COMPARISON = "comparison"
    FINDINGS = "findings"
    IMPRESSION = "impression"
    RECOMMENDATION = "recommendation"


class Author(StrEnum):
    """Who worded a text."""

    RULES = "rules"
    LANGUAGE_MODEL = "language_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One sentence and the findings it rests on.

    Attributes
    ----------
    finding_ids : tuple of str
        ``model/F1``: empty for a sentence about the method.
    is_fixed : bool
        Whether the wording is part of the safety of the text (``safety.py``): nobody rewords it.
    """

    text: str
    finding_ids: tuple[str, ...] = ()
    is_fixed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section of a report."""

    name: SectionName
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """The sentences, one after the other."""
        return " ".join(sentence.text for sentence in self.sentences)

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The sentences, those in a row that rest on the same findings joined into one paragraph."""
        groups = groupby(self.sentences, key=lambda sentence: sentence.finding_ids)
        return tuple(" ".join(sentence.text for sentence in group) for _, group in groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextProvenance:
    """How a text came to be.

    Attributes
    ----------
    language_model : str or None
        Name and version of the language model whose wording stands, if one's does.
    remark : str
        Why this author's wording stands.
    """

    author: Author
    remark: str
    language_model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportText:
    """A drafted report: never shown or sent without its banner."""

    sections: tuple[Section, ...]
    provenance: TextProvenance
    banner: str = BANNER

    def section(self, name: SectionName) -> Section:
        """Return one section.

        Raises
        ------
        KeyError
            If the report has no such section.
        """
        for section in self.sections:
            if section.name is name:
                return section
        raise KeyError(name)

    @property
    def notices(self) -> tuple[str, ...]:
        """What every form of the report begins with: the banner, and who worded it."""
        return self.banner, self.provenance.remark

    @property
    def plain(self) -> str:
        """The whole report as plain text, banner first."""
        blocks = list(self.notices)
        blocks += [f"{section.name.value.upper()}\n{section.text}" for section in self.sections]
        return "\n\n".join(blocks)
