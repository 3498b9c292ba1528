from __future__ import annotations

import pytest

from reporting.draft import draft_report
from reporting.refine import LanguageModel, refine
from reporting.text import Author


class EagerModel:
    """A language model that must not be asked before its answers can be checked."""

    identity = "eager 1.0"

    def complete(self, prompt: str) -> str:
        raise AssertionError(prompt)


@pytest.mark.parametrize(("model", "reason"), [(None, "no language model"), (EagerModel(), "cannot check")])
def test_the_draft_stands_and_says_why(case, model: LanguageModel | None, reason):
    draft = draft_report([case.analysis])
    text = refine(draft, [case.analysis], model)
    assert (text.sections, text.banner) == (draft.sections, draft.banner)
    assert reason in text.provenance.remark
    assert text.provenance.author is Author.RULES
    assert text.provenance.language_model is None
