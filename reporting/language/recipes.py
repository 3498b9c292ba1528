"""Adapter: the table of all recipes, those of models that write text beside those that find.

`inference.training.recipes` cannot name the modules of reporting/; the command line asks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from inference.training import recipes
from inference.training.recipe import Recipe

RECIPE_MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {**recipes.RECIPE_MODULES, "chest-xray-report": "reporting.language.chest_report"}
)
"""Name of the model package that a recipe makes, and the module that holds it."""


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a model.

    Raises
    ------
    UnknownRecipeError
        If there is none; the message lists those that there are.
    """
    return recipes.find_recipe(name, RECIPE_MODULES)


def list_recipes() -> tuple[Recipe, ...]:
    """Return every recipe, in the order of the table."""
    return recipes.list_recipes(RECIPE_MODULES)
