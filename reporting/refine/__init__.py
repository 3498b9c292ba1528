"""Pure. The port through which a language model may word a report.

A site without a language model loses nothing: the draft stands, and its provenance
says so. A wording that has not been checked against the findings reaches nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from inference.findings import Analysis
from reporting.refine.port import LanguageModel
from reporting.text import Author, ReportText, TextProvenance

_NO_MODEL: Final = "The draft stands: no language model is configured."
_NO_CHECK: Final = (
    "The draft stands: this version cannot check a language model's wording against the findings."
)


def refine(draft: ReportText, analyses: Sequence[Analysis], model: LanguageModel | None = None) -> ReportText:
    """Return the wording that stands.

    Parameters
    ----------
    draft : ReportText
        The text that rules made from ``analyses``.
    analyses : sequence of Analysis
        The ground that any other wording has to agree with.
    model : LanguageModel or None
        None if the site has none.

    Returns
    -------
    ReportText
        The sentences of the draft; the provenance says why no other wording stands.
    """
    del analyses  # the ground of the check that a language model's wording has to pass
    remark = _NO_MODEL if model is None else _NO_CHECK
    return replace(draft, provenance=TextProvenance(author=Author.RULES, remark=remark))


__all__ = ["LanguageModel", "refine"]
