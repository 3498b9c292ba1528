"""Pure. What a question asks for, recognised by rules, and the tool calls that answer it.

A closed set: a question that fits none is refused. A follow-up ("and on the left?", "is
it bigger?") takes what it leaves out from the turn before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from reporting.assistant.evidence import ToolCall, ToolName
from reporting.assistant.rules import pattern, read_table
from reporting.assistant.vocabulary import find_concepts, find_other_terms, is_about_imaging


class Intent(StrEnum):
    """What can be asked."""

    SUMMARY = "summary"
    PRESENCE = "presence"
    PLACE = "place"
    CERTAINTY = "certainty"
    SIZE = "size"
    ATTENTION = "attention"
    DOUBTS = "doubts"
    TRIAGE = "triage"
    PROCEDURE = "procedure"
    CHANGE = "change"
    SOURCES = "sources"
    RELATIONS = "relations"
    RUN_MODEL = "run_model"
    HELP = "help"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What is remembered of a question: what it was about, and no answer."""

    asked: str
    intent: str = ""
    concepts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a question asks for, and the calls that answer it.

    Attributes
    ----------
    intent : Intent or None
        None if the question fits no intent: it is refused.
    concepts : tuple of str
        Findings that it names, or that the turn before named.
    others : tuple of str
        Medical terms that no finding here covers.
    """

    intent: Intent | None
    concepts: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    calls: tuple[ToolCall, ...] = ()


def plan_by_rule(asked: str, history: Sequence[Turn] = ()) -> Plan:
    """Return what a question asks for.

    Parameters
    ----------
    asked : str
        The question, cleaned.
    history : sequence of Turn
        The turns before, the last one last.
    """
    named, others = find_concepts(asked), find_other_terms(asked)
    last = history[-1] if history else None
    intent = _recognise(asked, is_medical=bool(named or others))
    concepts = named
    is_open = last is not None and not named and not others
    if last is not None and is_open and (intent is None or _refers_back(asked)):
        if intent is None and last.intent and _matches(asked, "follow_ups", "follows"):
            intent = Intent(last.intent)
        concepts = last.concepts if intent is not None else ()
    if intent is None:
        return Plan(intent=None, concepts=concepts, others=others)
    calls = call_for(intent, asked, concepts, others)
    return Plan(intent=intent, concepts=concepts, others=others, calls=calls)


def call_for(
    intent: Intent, asked: str, concepts: tuple[str, ...] = (), others: tuple[str, ...] = ()
) -> tuple[ToolCall, ...]:
    """Return the tool calls that answer an intent."""
    about = {"concepts": ",".join(concepts)} if concepts else {}
    if others and not concepts:
        about = {"other": ",".join(others)}
    if intent is Intent.RUN_MODEL:
        return (ToolCall(tool=ToolName.RUN_MODEL, arguments=read_run_request(asked)),)
    if intent is Intent.SOURCES:
        calls = [ToolCall(tool=ToolName.RETRIEVE, arguments={"query": asked})]
        if concepts:
            calls.append(ToolCall(tool=ToolName.RELATED, arguments=about))
        return tuple(calls)
    if intent is Intent.CERTAINTY:
        return (
            ToolCall(tool=ToolName.FINDINGS, arguments=about),
            ToolCall(tool=ToolName.WHERE_DID_IT_LOOK, arguments={"aspect": "doubts"}),
        )
    tool, arguments = _TOOLS[intent]
    takes_concepts = tool in {ToolName.FINDINGS, ToolName.MEASUREMENTS, ToolName.PRIORS, ToolName.RELATED}
    if takes_concepts or intent is Intent.ATTENTION:
        arguments = {**arguments, **about}
    if intent in {Intent.PRESENCE, Intent.PLACE, Intent.SIZE}:
        side = _SIDE.search(asked)
        arguments = {**arguments, **({"side": side.group().lower()} if side else {})}
    return (ToolCall(tool=tool, arguments=arguments),)


def is_run_request(asked: str) -> bool:
    """Say whether a person asks for a model to be run; nothing else may start one."""
    return _matches(asked, "requests", "run") and not _matches(asked, "requests", "no_run")


def read_run_request(asked: str) -> dict[str, str]:
    """Return what a request to run a model names: model, series number."""
    arguments: dict[str, str] = {}
    model = _MODEL.search(asked)
    if model:
        arguments["model"] = model.group(0).lower()
    series = _SERIES.search(asked)
    if series:
        arguments["series"] = series.group(1)
    arguments["request"] = asked
    return arguments


def _recognise(asked: str, *, is_medical: bool) -> Intent | None:
    if is_run_request(asked):
        return Intent.RUN_MODEL
    if is_medical and _matches(asked, "definition"):
        return Intent.SOURCES
    if not is_about_imaging(asked):
        return Intent.HELP if _matches(asked, "intents", "help") else None
    for name in read_table("questions")["intents"]:
        if _matches(asked, "intents", name):
            return Intent(name)
    return Intent.PRESENCE if is_medical and len(asked.split()) <= _FEW_WORDS else None


def _refers_back(asked: str) -> bool:
    """Say whether a question that names no finding means that of the one before."""
    return _matches(asked, "follow_ups", "refers") or len(asked.split()) <= _SHORT


def _matches(asked: str, *path: str) -> bool:
    return pattern(*path).search(asked) is not None


#: A bare finding ("pneumothorax?", "effusion on the left?") asks whether it is there.
_FEW_WORDS: Final = 14
#: A question as short as this that names nothing is about what the one before was about.
_SHORT: Final = 4
_SIDE: Final = re.compile(r"\b(?:left|right|both sides|bilateral)\b", re.IGNORECASE)
_MODEL: Final = re.compile(r"\b[a-z][a-z0-9]*(?:-[a-z0-9]+)+(?:@\d+\.\d+\.\d+)?\b", re.IGNORECASE)
_SERIES: Final = re.compile(r"\bseries\s+(?:number\s+|no\.?\s*|#\s*)?(\d{1,4})\b", re.IGNORECASE)
_TOOLS: Final = MappingProxyType(
    {
        Intent.SUMMARY: (ToolName.FINDINGS, {}),
        Intent.PRESENCE: (ToolName.FINDINGS, {}),
        Intent.PLACE: (ToolName.FINDINGS, {}),
        Intent.SIZE: (ToolName.MEASUREMENTS, {}),
        Intent.ATTENTION: (ToolName.WHERE_DID_IT_LOOK, {"aspect": "attention"}),
        Intent.DOUBTS: (ToolName.WHERE_DID_IT_LOOK, {"aspect": "doubts"}),
        Intent.TRIAGE: (ToolName.WHERE_DID_IT_LOOK, {"aspect": "triage"}),
        Intent.PROCEDURE: (ToolName.PROCEDURE, {}),
        Intent.CHANGE: (ToolName.PRIORS, {}),
        Intent.RELATIONS: (ToolName.RELATED, {}),
        Intent.HELP: (ToolName.PROCEDURE, {"help": "yes"}),
    }
)
