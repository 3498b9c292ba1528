"""Adapter: the table of recipes, one a trainable model, each imported when it is asked for.

`preread train --list` prints this table. Who adds a recipe writes a module that ends in a ``RECIPE`` and adds
its line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from dicom_node.errors import PermanentError
from inference.training.recipe import Recipe

RECIPE_MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "brain-tumour-lgg": "inference.training.brain_tumour",
        "chest-xray-boxes": "inference.training.detection",
        "chest-xray-labels": "inference.training.chest_labels",
        "head-ct": "inference.training.head_ct",
        "ct-mr-fusion": "inference.training.fusion",
    }
)
"""Name of the model package that a recipe makes, and the module that holds it."""


class UnknownRecipeError(PermanentError):
    """No recipe makes a model of this name."""


def find_recipe(name: str, modules: Mapping[str, str] = RECIPE_MODULES) -> Recipe:
    """Return the recipe of a model.

    Parameters
    ----------
    name : str
        Name of the model package.
    modules : mapping
        The table.

    Raises
    ------
    UnknownRecipeError
        If there is none; the message lists those that there are.
    """
    if name not in modules:
        raise UnknownRecipeError(f"No recipe trains {name!r}: choose one of {', '.join(sorted(modules))}.")
    recipe: Recipe = import_module(modules[name]).RECIPE
    return recipe


def list_recipes(modules: Mapping[str, str] = RECIPE_MODULES) -> tuple[Recipe, ...]:
    """Return every recipe, in the order of the table."""
    return tuple(find_recipe(name, modules) for name in modules)
