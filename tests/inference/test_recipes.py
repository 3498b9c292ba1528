from __future__ import annotations

from importlib import resources

import pytest

from inference.training.recipes import RECIPE_MODULES, UnknownRecipeError, find_recipe, list_recipes


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torchsurv's own
def test_every_recipe_of_the_table_makes_the_model_that_it_names() -> None:
    assert [recipe.name for recipe in list_recipes()] == list(RECIPE_MODULES)
    assert all(recipe.summary for recipe in list_recipes())


@pytest.mark.parametrize("name", RECIPE_MODULES)
def test_every_recipe_brings_what_its_card_says_whatever_the_run(name: str) -> None:
    assert resources.files("inference.training").joinpath(f"cards/{name}.yaml").is_file()


def test_an_unknown_model_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(UnknownRecipeError, match="head-ct"):
        find_recipe("hand-radiograph")
