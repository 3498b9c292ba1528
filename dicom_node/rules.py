"""Pure. The rule file that a PACS administrator writes, checked and frozen.

Declarative on purpose: there is no expression, no regular expression and no
reference that a rule could use to do anything but compare. ``docs/routing.md``
describes the format; ``default_rules.yaml`` is used without a file.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydicom.datadict import keyword_dict

from dicom_node.errors import PermanentError
from dicom_node.model_reference import ModelReference, parse_reference
from dicom_node.sop_classes import SOP_CLASS_BY_NAME, is_registered
from dicom_node.study import SOPClassUID

#: Far above any real rule file.
_MAX_CHARACTERS: Final = 1_000_000


class RulesError(PermanentError):
    """A rule file is wrong: the message names the rule, the field and what is valid there."""


class Priority(StrEnum):
    """How soon a study is read."""

    STAT = "stat"
    ROUTINE = "routine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a rule asks of a study; an empty field asks nothing.

    ``source_ae`` and ``study_description`` are of the study; the others must
    hold for one and the same series. ``tags`` are pairs of DICOM keyword and
    patterns.
    """

    modality: tuple[str, ...] = ()
    sop_class: tuple[SOPClassUID, ...] = ()
    body_part: tuple[str, ...] = ()
    study_description: tuple[str, ...] = ()
    series_description: tuple[str, ...] = ()
    tags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    source_ae: tuple[str, ...] = ()
    min_images: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happens to a study that a rule matches.

    ``shadows`` read it too, and nothing of what they say leaves the node.
    """

    models: tuple[ModelReference, ...] = ()
    shadows: tuple[ModelReference, ...] = ()
    destinations: tuple[str, ...] = ()
    priority: Priority = Priority.ROUTINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: when it matches, and then what."""

    name: str
    when: Conditions
    then: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """All rules, and what happens to a study that none matches."""

    rules: tuple[Rule, ...] = ()
    fallback: Outcome = Outcome()


def parse_rules(text: str) -> RuleSet:
    """Read a rule file.

    Parameters
    ----------
    text : str
        YAML as ``docs/routing.md`` describes it.

    Raises
    ------
    RulesError
        With one line for every mistake: rule, field, what is wrong, the nearest valid word.
    """
    document = _load_yaml(text)
    try:
        parsed = _RuleFile.model_validate(document)
    except ValidationError as error:
        lines = [_describe(problem, document) for problem in error.errors(include_url=False)]
        raise RulesError("\n".join(lines)) from error
    names = [rule.name for rule in parsed.rules]
    for name in names:
        if names.count(name) > 1:
            raise RulesError(f"rule {name!r}, field name: two rules have this name, give each its own")
    return RuleSet(
        rules=tuple(_freeze_rule(rule) for rule in parsed.rules), fallback=_freeze_outcome(parsed.fallback)
    )


def default_rules(*, is_fusion_wanted: bool = False) -> RuleSet:
    """Return the rules that apply where a site has none of its own.

    Parameters
    ----------
    is_fusion_wanted : bool
        Whether the site lets the node read a patient's CT and MR together: adds the rule for it.
    """
    rules = _packaged_rules("default_rules.yaml")
    if not is_fusion_wanted:
        return rules
    return RuleSet(rules=rules.rules + _packaged_rules("fusion_rules.yaml").rules, fallback=rules.fallback)


def _packaged_rules(name: str) -> RuleSet:
    return parse_rules(resources.files("dicom_node").joinpath(name).read_text(encoding="utf-8"))


def _to_tuple(value: Any) -> Any:
    """Let a person write one word where a list is meant, and a number where YAML reads one."""
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(
        str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in items
    )


Words = Annotated[tuple[Annotated[str, Field(max_length=256)], ...], BeforeValidator(_to_tuple)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _When(_Section):
    modality: Words = ()
    sop_class: Words = ()
    body_part: Words = ()
    study_description: Words = ()
    series_description: Words = ()
    tags: dict[str, Words] = {}
    source_ae: Words = ()
    min_images: Annotated[int, Field(ge=0)] = 0

    @field_validator("modality")
    @classmethod
    def _upper(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(value.upper() for value in values)

    @field_validator("sop_class")
    @classmethod
    def _to_uids(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not (value in SOP_CLASS_BY_NAME or is_registered(value) or _is_uid(value)):
                raise ValueError(f"unknown SOP Class {value!r}{_nearest(value, SOP_CLASS_BY_NAME)}")
        return tuple(SOP_CLASS_BY_NAME.get(value, value) for value in values)

    @field_validator("tags")
    @classmethod
    def _known_keywords(cls, values: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for keyword in values:
            if keyword not in keyword_dict:
                raise ValueError(f"unknown DICOM keyword {keyword!r}{_nearest(keyword, keyword_dict)}")
        return values


class _Then(_Section):
    models: Words = ()
    shadow: Words = ()
    destinations: Words = ()
    priority: Priority = Priority.ROUTINE

    @field_validator("models", "shadow")
    @classmethod
    def _check_references(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            parse_reference(value)
        return values


class _Rule(_Then):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    when: _When


class _RuleFile(_Section):
    rules: tuple[_Rule, ...] = ()
    fallback: _Then = _Then()


class _StrictLoader(yaml.SafeLoader):
    """Plain YAML: no aliases (a few lines could expand to gigabytes), no repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise RulesError(f"line {mark.line + 1}: aliases are not allowed, write the value again")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise RulesError(f"line {line}: {key.value!r} is given twice, keep one")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def _load_yaml(text: str) -> Any:
    if len(text) > _MAX_CHARACTERS:
        raise RulesError(
            f"the rule file is longer than {_MAX_CHARACTERS} characters: split off what is no rule"
        )
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 1
        raise RulesError(f"line {line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RulesError("the rule file is not YAML: check quotes and indentation") from error
    return {} if document is None else document


def _describe(problem: Any, document: Any) -> str:
    """Return one mistake as a line that names rule and field."""
    location = [part for part in problem["loc"] if part != "[key]"]
    where = "rule file"
    if location and location[0] == "fallback":
        where, location = "fallback", location[1:]
    elif len(location) > 1 and location[0] == "rules":
        where, location = _rule_label(document, location[1]), location[2:]
    names = [part for part in location if isinstance(part, str)]
    field = f", field {'.'.join(names)}" if names else ""
    if problem["type"] == "extra_forbidden":
        nearest = _nearest(names[-1], _fields_beside(where, names))
        return f"{where}{field}: unknown field{nearest}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}{field}: {message}"


def _rule_label(document: Any, index: Any) -> str:
    try:
        return f"rule {document['rules'][index]['name']!r}"
    except (KeyError, IndexError, TypeError):
        return f"rule {index + 1 if isinstance(index, int) else index}"


def _fields_beside(where: str, names: list[str]) -> Iterable[str]:
    if where == "rule file":
        return _RuleFile.model_fields
    if names[0] == "when" and len(names) > 1:
        return _When.model_fields
    return (_Then if where == "fallback" else _Rule).model_fields


def _nearest(word: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def _is_uid(value: str) -> bool:
    return "." in value and value.replace(".", "").isdigit()


def _freeze_outcome(then: _Then) -> Outcome:
    return Outcome(
        models=tuple(parse_reference(model) for model in then.models),
        shadows=tuple(parse_reference(model) for model in then.shadow),
        destinations=then.destinations,
        priority=then.priority,
    )


def _freeze_rule(rule: _Rule) -> Rule:
    when = rule.when
    return Rule(
        name=rule.name,
        when=Conditions(
            modality=when.modality,
            sop_class=tuple(SOPClassUID(uid) for uid in when.sop_class),
            body_part=when.body_part,
            study_description=when.study_description,
            series_description=when.series_description,
            tags=tuple(sorted(when.tags.items())),
            source_ae=when.source_ae,
            min_images=when.min_images,
        ),
        then=_freeze_outcome(rule),
    )
