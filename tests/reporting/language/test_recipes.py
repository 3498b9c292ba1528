from __future__ import annotations

import pytest

from inference.training import recipes as finding
from inference.training.recipes import UnknownRecipeError
from reporting.language.recipes import RECIPE_MODULES, find_recipe


def test_the_table_has_what_finds_and_what_writes() -> None:
    assert set(finding.RECIPE_MODULES) < set(RECIPE_MODULES)
    assert find_recipe("chest-xray-report").name == "chest-xray-report"


def test_an_unknown_model_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(UnknownRecipeError, match="chest-xray-report"):
        find_recipe("hand-radiograph")
