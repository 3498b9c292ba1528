"""How often the assistant does what it should: tool choice, refusals, citations, seconds.

    python benchmarks/assistant.py                      # rules alone
    python benchmarks/assistant.py --model embedded     # the embedded language model beside them
    python benchmarks/assistant.py --json out.json

Questions lie in `assistant_questions.yaml`: each with the study it is asked of, the tool that must be
called, the refusal that must come, and the ids that must (and must not) be cited. The studies are
generated; no data set is needed. Questions marked `held_out` were written after the rules were and
have not been used to change them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

from assistant_cases import Memories, ask, brain_record, chest_record, fusion_record, ports_for  # noqa: E402

from reporting.assistant.answer import Outcome  # noqa: E402
from reporting.assistant.exchange import Exchange, Planner  # noqa: E402
from reporting.assistant.graph import Assistant, AssistantLimits  # noqa: E402
from reporting.refine.port import LanguageModel  # noqa: E402
from reporting.text import Author  # noqa: E402

RECORDS = {"brain": brain_record, "chest": chest_record, "fusion": fusion_record}


@dataclass(frozen=True)
class Judged:
    """One question and whether it was handled as it should have been."""

    question: str
    kind: str
    is_held_out: bool
    should_refuse: bool
    is_refused: bool
    is_tool_right: bool | None
    are_citations_right: bool | None
    is_reason_right: bool | None
    by_model: bool
    verdict: str
    seconds: float


def judge(case: dict[str, Any], exchange: Exchange, seconds: float) -> Judged:
    should_refuse = "refusal" in case
    is_refused = exchange.answer.outcome is Outcome.REFUSED
    tools = {one.call.tool.value for one in exchange.calls}
    cited = {one.citation_id for one in exchange.answer.citations}
    wanted, unwanted = set(case.get("cites", ())), set(case.get("cites_not", ()))
    refusal = exchange.answer.refusal.value if exchange.answer.refusal else None
    return Judged(
        question=case["ask"],
        kind=case["kind"],
        is_held_out=case.get("held_out", False),
        should_refuse=should_refuse,
        is_refused=is_refused,
        is_tool_right=None if should_refuse else case["tool"] in tools,
        are_citations_right=None if should_refuse else wanted <= cited and not unwanted & cited,
        is_reason_right=refusal == case["refusal"] if should_refuse and is_refused else None,
        by_model=exchange.answer.author is Author.LANGUAGE_MODEL,
        verdict=exchange.verdict,
        seconds=seconds,
    )


def run(cases: list[dict[str, Any]], model: LanguageModel | None, planner: Planner) -> list[Judged]:
    judged = []
    for case in cases:
        record = RECORDS[case["study"]]()
        assistant = Assistant(
            ports=ports_for(record),
            memory=Memories(),
            language_model=model,
            planner=planner,
            limits=AssistantLimits(timeout_s=180, wording_timeout_s=60),
        )
        for before in case.get("after", ()):
            ask(assistant, record, before)
        began = time.perf_counter()
        exchange = ask(assistant, record, case["ask"])
        judged.append(judge(case, exchange, time.perf_counter() - began))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return judged


def share(values: list[bool]) -> str:
    return f"{sum(values)}/{len(values)} ({100 * sum(values) / len(values):.0f} %)" if values else "-"


def summarise(name: str, judged: list[Judged]) -> dict[str, Any]:
    refused = [one for one in judged if one.is_refused]
    outside = [one for one in judged if one.should_refuse]
    inside = [one for one in judged if not one.should_refuse]
    times = sorted(one.seconds for one in judged)
    return {
        "run": name,
        "questions": len(judged),
        "right tool": share([bool(one.is_tool_right) for one in inside]),
        "refusal precision": share([one.should_refuse for one in refused]),
        "refusal recall": share([one.is_refused for one in outside]),
        "reason of refusal": share(
            [one.is_reason_right for one in outside if one.is_reason_right is not None]
        ),
        "citations right": share([bool(one.are_citations_right) for one in inside]),
        "worded by the model": share([one.by_model for one in inside]),
        "seconds, median": round(statistics.median(times), 3),
        "seconds, 95 %": round(times[min(len(times) - 1, int(0.95 * len(times)))], 3),
    }


def show(summary: dict[str, Any]) -> None:
    print()
    for key, value in summary.items():
        print(f"{key:<20}  {value}", flush=True)


def build_embedded() -> LanguageModel:
    from integration.language import build_model
    from integration.settings import LanguageSection

    model = build_model(LanguageSection(backend="embedded"), Path("var") / "language")
    assert model is not None
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["none", "embedded"], default="none")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--limit", type=int, help="First so many questions of each kind.")
    parser.add_argument("--questions", type=Path, default=HERE / "assistant_questions.yaml")
    options = parser.parse_args()
    cases = yaml.safe_load(options.questions.read_text())
    if options.limit:
        kinds: dict[str, int] = {}
        kept = []
        for case in cases:
            kinds[case["kind"]] = kinds.get(case["kind"], 0) + 1
            kept += [case] if kinds[case["kind"]] <= options.limit else []
        cases = kept
    ask(
        Assistant(ports=ports_for(chest_record()), memory=Memories()), chest_record(), "What did the AI find?"
    )
    runs: list[tuple[str, LanguageModel | None, Planner]] = [("rules", None, Planner.RULES)]
    if options.model == "embedded":
        model = build_embedded()
        runs += [
            ("rules plan, embedded model words", model, Planner.RULES),
            ("embedded model plans and words", model, Planner.LANGUAGE_MODEL),
        ]
    summaries, wrong = [], {}
    for name, model, planner in runs:
        judged = run(cases, model, planner)
        summaries.append(summarise(name, judged))
        show(summaries[-1])
        held = [one for one in judged if one.is_held_out]
        if held:
            summaries.append(summarise(f"{name}, held out", held))
            show(summaries[-1])
        wrong[name] = [
            f"{one.kind}: {one.question}"
            for one in judged
            if one.is_refused != one.should_refuse
            or one.is_tool_right is False
            or one.are_citations_right is False
            or one.is_reason_right is False
        ]
        if model is not None:
            reasons: dict[str, int] = {}
            for one in judged:
                reasons[one.verdict] = reasons.get(one.verdict, 0) + 1
            print(f"\n{name}: verdicts")
            for verdict, count in sorted(reasons.items(), key=lambda pair: -pair[1]):
                print(f"  {count:3d}  {verdict or '(no wording was asked for)'}")
    for name, lines in wrong.items():
        print(f"\nnot as it should be, {name}: {len(lines)}")
        print("\n".join(f"  {line}" for line in lines))
    if options.json:
        options.json.write_text(json.dumps({"summaries": summaries, "wrong": wrong}, indent=1))


if __name__ == "__main__":
    main()
