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
    if last is not None and not named and not others and (intent is None or _REFERS.search(asked)):
        if intent is None and last.intent and _FOLLOWS.search(asked):
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
    return _RUN.search(asked) is not None and _NO_RUN.search(asked) is None


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
    if is_medical and _DEFINITION.search(asked):
        return Intent.SOURCES
    if not is_about_imaging(asked):
        return Intent.HELP if _HELP.search(asked) else None
    for intent, pattern in _PATTERNS:
        if pattern.search(asked):
            return intent
    return Intent.PRESENCE if is_medical and len(asked.split()) <= _FEW_WORDS else None


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_HELP: Final = _any(
    r"\bwhat (?:can|may|could) (?:i|you|we) (?:ask|do|answer|help)",
    r"^help\W*$",
    r"\bhow (?:do|can) (?:i|you) (?:use|ask|help)\b",
    r"\bwhat are you\b",
    r"\bwhat questions\b",
)
#: "What is a pneumothorax?" asks for a source; "what is the size of it" does not.
_DEFINITION: Final = re.compile(
    r"^what (?:is|are) (?:an? )?(?!(?:the|your?|this|that|there|its?|found|seen|new)\b)(?:[\w-]+ ?){1,4}\?*$",
    re.IGNORECASE,
)
#: A bare finding ("pneumothorax?", "effusion on the left?") asks whether it is there.
_FEW_WORDS: Final = 8
_SIDE: Final = re.compile(r"\b(?:left|right|both sides|bilateral)\b", re.IGNORECASE)
_MODEL: Final = re.compile(r"\b[a-z][a-z0-9]*(?:-[a-z0-9]+)+(?:@\d+\.\d+\.\d+)?\b", re.IGNORECASE)
_SERIES: Final = re.compile(r"\bseries\s+(?:number\s+|no\.?\s*|#\s*)?(\d{1,4})\b", re.IGNORECASE)
_RUN: Final = _any(
    r"(?:^|\bplease\s+|\b(?:can|could|will|would) you (?:please )?)(?:re-?run|run|apply|execute|start|launch|use)\b"
    r".{0,60}\b(?:model|segmentation|network|algorithm|detector|classifier|on|to|over)\b",
    r"(?:^|\bplease\s+|\b(?:can|could|will|would) you (?:please )?)(?:segment|outline|delineate|contour|re-?read|"
    r"classify|analy[sz]e)\b.{0,60}\b(?:series|images?|study|scan|brain|tumou?r|lesion|chest|model|again|with)\b",
    r"\b(?:i want|i would like|let) .{0,30}\b(?:model|network|algorithm|segmentation)\b.{0,30}\b(?:run|read|segment)",
)
_NO_RUN: Final = _any(r"\b(?:did|was|were|has|have|which|what|who|when|why|how)\b")
_REFERS: Final = _any(
    r"\b(?:it|its|that|this one|they|them|their|those|these|he|the same|the finding|the lesion|the mark)\b",
    r"^(?:and|but|what about|how about|also|so)\b",
)
_FOLLOWS: Final = _any(
    r"^(?:and|but|what about|how about|also|so)\b",
    r"^(?:on|in|at) the (?:left|right|other)\b",
    r"^(?:left|right)\W*$",
)
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
_THING: Final = (
    r"(?:finding|lesion|abnormalit|tumou?r|mark|nodule|mass|opacity|effusion|it|them|haemorrhage|hemorrhage|bleed|"
    r"pneumo|cardiomegaly|heart|atelectas|consolidation|algorithm|model|network|ai)"
)
_PATTERNS: Final = (
    (Intent.HELP, _HELP),
    (
        Intent.RELATIONS,
        _any(
            r"\b(?:related|associated|linked|connected) (?:to|with)\b",
            r"\bwhich (?:diseases?|conditions?|syndromes?|disorders?)\b", r"\bknowledge graph\b",
            r"\bwhat (?:diseases?|conditions?|syndromes?|disorders?) (?:can|may|could|show|cause|go|come|are)\b",
            r"\bdifferential\b",
        ),
    ),
    (
        Intent.SOURCES,
        _any(
            r"\b(?:guidelines?|guidance|sources?|literature|library|textbooks?|references?|documents?)\b",
            r"\bwhat (?:does|do) (?:the )?(?:[\w-]+ )?(?:society|fleischner|acr|rsna|who|nice|rano|texts?|papers?) say",
            r"^what (?:is|are|does) (?:an? |the )?(?:term |word )?[\w -]{3,60}? (?:mean|defined as)\b",
            r"\b(?:define|definition of|meaning of|explain what)\b",
            r"\bhow (?:is|are) [\w -]{3,60} (?:graded|classified|defined|caused)\b", r"\bfleischner\b|\brecist\b",
            r"\brisk factors\b|\bsymptoms\b",
        ),
    ),
    (
        Intent.CHANGE,
        _any(
            r"\b(?:grow|grew|grown|growing|growth|shrunk|shrank|shrink|progress(?:ed|ion)?|regress\w*)\b",
            r"\b(?:chang(?:e|ed|es|ing))\b", r"\b(?:bigger|larger|smaller|worse|better|increased|decreased)\b",
            r"\b(?:previous|prior|earlier|former|last|old|baseline) (?:study|studies|exam\w*|scan|image|images|read\w*"
            r"|run|x-?ray|film|time|report|visit|mr|ct|one)\b", r"\bpriors?\b", r"\bcompar(?:e|ed|ison|ing)\b",
            r"\b(?:is|are|was) (?:it|this|that|the \w+|they) new\b|\bnew since\b|\bsince (?:the )?last\b",
            r"\bover time\b|\bstable\b|\bfollow(?:ed)?[- ]up (?:study|shows?)\b",
        ),
    ),
    (
        Intent.ATTENTION,
        _any(
            r"\bheat ?maps?\b|\bgrad-?cam\b|\bsalien\w+|\battention\b|\bactivation\b",
            r"\bwhere (?:did|does|was|is|has) (?:it|the (?:ai|model|network|algorithm)|[\w-]+) (?:look|focus)\w*",
            rf"\bwhy (?:did|does|was|is|has|do you) .{{0,40}}{_THING}",
            r"\b(?:what|which) (?:part|region|area)s? .{0,40}\b(?:look|decid|bas|focus|rest|driv)",
            r"\b(?:look(?:ed|ing)?|focus(?:ed|ing)?) (?:at|on) (?:to|for|when)\b",
            r"\bwhat (?:is|was) (?:the|this) .{0,30}\bbased on\b",
        ),
    ),
    (
        Intent.TRIAGE,
        _any(r"\b(?:triage|urgent|urgency|priority|emergency|stat|critical|risk class|high risk|low risk)\b"),
    ),
    (
        Intent.CERTAINTY,
        _any(
            r"\bhow (?:sure|confident|certain|probable|likely|reliable)\b",
            r"\b(?:confidence|probabilit(?:y|ies)|certainty|uncertainty|likelihood|odds)\b",
            r"\b(?:is|are|was) (?:it|the (?:ai|model|algorithm|network)|you) (?:sure|certain|confident)\b",
        ),
    ),
    (
        Intent.DOUBTS,
        _any(
            r"\b(?:trust|rely|reliable|doubts?|doubtful|limitations?|limits?|caveats?|warnings?|problems?|quality)\b",
            r"\bartefacts?\b|\bartifacts?\b|\bnotes?\b|\bout of distribution\b|\bdid anything (?:fail|go wrong)\b",
            r"\bwhat (?:did|could) (?:it|the (?:ai|model|algorithm)) not (?:see|read|assess)\b|\brefus(?:e|ed)\b",
            r"\bwhy is there no (?:answer|result|finding)", r"\bfailed\b",
        ),
    ),
    (
        Intent.SIZE,
        _any(
            r"\bhow (?:big|large|long|wide|small|much|thick)\b", r"\b(?:sizes?|volumes?|diameters?|dimensions?|areas?)\b",
            r"\bmeasur(?:e|ed|es|ement|ements|ing)\b|\bmillimet\w+|\bmillilit\w+|\b(?:mm|ml|cm)\b",
            r"\b(?:largest|biggest|smallest)\b",
        ),
    ),
    (
        Intent.PROCEDURE,
        _any(
            r"\b(?:which|what|how many) (?:of the |is the |are the |was the |were the |\w+ )?(?:models?|algorithms?|"
            r"networks?|ai|series|versions?|weights|sequences?|images?|software|slices?)\b",
            r"\bwho (?:read|made|wrote|reported)\b|\bhow was (?:this|the|it) (?:study |image )?(?:read|made|analy)",
            r"\b(?:version|licen[cs]e) of\b|\bwhich (?:image|slice)s?\b|\bstood in\b|\bsubstitut\w+",
            r"\bwhat (?:does|do|can|did) (?:the |this )?(?:model|algorithm|ai|network)s? (?:look for|detect|report|find)",
            r"\bwhat (?:is|was|were) looked for\b",
        ),
    ),
    (
        Intent.PLACE,
        _any(
            r"\bwhere(?:'s| is| are| was| were)\b", r"\b(?:which|what) (?:side|lobe|zone|hemisphere|part)\b",
            r"\b(?:location|position|located|laterality|localis\w+|localiz\w+)\b",
            r"\bis (?:it|that|the \w+) (?:on the )?(?:left|right)\b",
        ),
    ),
    (
        Intent.SUMMARY,
        _any(
            r"\bwhat (?:did|does|do|has|have) (?:it|you|the (?:ai|models?|algorithms?|networks?)|they|we) "
            r"(?:find|found|see|seen|detect|report|say|show)\w*",
            r"\b(?:summar\w+|overview|impression|key findings?|main findings?|all findings?|list (?:the |all )?findings)\b",
            r"\b(?:any|other|anything|something|the) (?:findings?|abnormal\w*|patholog\w*|lesions?|else)\b",
            r"\bwhat (?:is|was|are|were) (?:found|seen|detected|there|the (?:findings?|results?|abnormalit\w+))",
            r"\b(?:is|was) (?:the|this) (?:study|scan|image|x-?ray|film|mr|ct|brain|chest|exam\w*) (?:normal|abnormal|ok)",
            r"\bwhat (?:does|do) (?:the|this) (?:study|scan|images?|x-?ray|film|report|mr|ct) (?:show|say)",
            r"\bhow many (?:findings?|lesions?|tumou?rs?|nodules?|marks?|abnormalit\w+|mass\w*)\b",
            r"\b(?:benign|malignan\w+|grade|tumou?r class|hazard|survival risk|estimates?)\b",
            r"\b(?:describe|tell me about|show me) (?:the )?(?:findings?|results?|study|lesions?|images?)\b",
        ),
    ),
    (
        Intent.PRESENCE,
        _any(
            r"\b(?:tumou?rs?|lesions?) (?:visible|present|there|seen)\b",
            r"\b(?:is|are|was|were) there (?:any |an? |some )?(?:sign|evidence|suspicion|suggestion)s? of\b.*"
            r"(?:disease|abnormal|bleed|tumou?r|infect|lung|heart|brain|pleura)",
        ),
    ),
)  # fmt: skip
