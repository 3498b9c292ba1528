"""Print studies of `preread language evaluate` side by side: the draft, the model's wording, its faults.

    python benchmarks/language_samples.py runs/language/evaluation --studies 10

The draft is made by the node's own rules from analyses that show what the study's facts say.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from inference.findings import (
    Analysis,
    Box,
    Finding,
    FrameReference,
    Laterality,
    Measurement,
    ModelIdentity,
    SeriesInput,
)
from inference.training.run_files import override
from reporting.draft import draft_report
from reporting.facts import Fact, FactKind
from reporting.language.evaluation import ANSWERS, EvaluateConfig
from reporting.language.pairs import Split, draw_pairs
from reporting.projection import RadiographView, Zone
from reporting.refine.answer import UnusableAnswerError, parse_answer
from reporting.refine.prompt import Ground
from reporting.text import SectionName

SIZE = 1000
FRAME = FrameReference(sop_instance_uid="1.2.3.4")
VIEWS = {FRAME: RadiographView(rows=SIZE, columns=SIZE, is_frontal=True)}
ZONES = {Zone.UPPER: 200, Zone.MID: 440, Zone.LOWER: 680, None: 900}
COLUMNS = {
    Laterality.LEFT: (700, 800),
    Laterality.RIGHT: (200, 300),
    Laterality.BILATERAL: (200, 800),
    None: (480, 520),
}


def rebuild_analyses(ground: Ground) -> list[Analysis]:
    """Return analyses whose facts are those of a drawn study."""
    analyses = []
    for name in dict.fromkeys(fact.algorithm for fact in ground.facts.facts):
        facts = [fact for fact in ground.facts.facts if fact.algorithm == name]
        analyses.append(
            Analysis(
                model=ModelIdentity(name=name, version="1", weights_sha256="", task="detection", title=name),
                study_uid="1.2.3",
                inputs=(SeriesInput(role="image", series_uid="1.2.3.3", frames=(FRAME,)),),
                findings=tuple(rebuild_finding(fact, number) for number, fact in enumerate(facts, 1)),
            )
        )
    return analyses


def rebuild_finding(fact: Fact, number: int) -> Finding:
    """Return a finding that a fact says the same of."""
    is_marked = fact.kind is FactKind.MARKED
    left, right = COLUMNS[fact.side]
    middle = ZONES[fact.zone]
    return Finding(
        finding_id=f"F{number}",
        concept=fact.concept,
        site=fact.site,
        presence=fact.presence,
        laterality=None if is_marked else fact.side,
        confidence=fact.confidence,
        box=Box(frame=FRAME, left=left, top=middle - 40, right=right, bottom=middle + 40)
        if is_marked
        else None,
        measurements=tuple(
            Measurement(quantity=size.quantity, value=size.value, unit=size.unit) for size in fact.sizes
        ),
    )


def print_study(number: int, ground: Ground, answer: dict[str, object]) -> None:
    """Print one study as Markdown."""
    draft = draft_report(rebuild_analyses(ground), VIEWS)
    print(f"## Study {number}: {ground.examination or 'examination not told'}\n")
    for name in (SectionName.FINDINGS, SectionName.IMPRESSION):
        print(f"**Draft, {name.value}.** {draft.section(name).text}\n")
    try:
        sentences = parse_answer(str(answer["answer"]))
    except UnusableAnswerError:
        print(f"**Model.** Not the JSON asked for: `{str(answer['answer'])[:300]}`\n")
        return
    for name in (SectionName.FINDINGS, SectionName.IMPRESSION):
        said = " ".join(f"{one.text} [{', '.join(one.aliases)}]" for one in sentences if one.section is name)
        print(f"**Model, {name.value}.** {said}\n")
    print(f"**Checker.** {describe_faults(answer['faults'])}\n")


def describe_faults(faults: Sequence[dict[str, object]] | object) -> str:
    """Return the checker's verdict in one line."""
    if not isinstance(faults, list) or not faults:
        return "Passed."
    details = dict.fromkeys(f"{fault['kind']}: {fault['detail']}".strip(": ") for fault in faults)
    return f"{'; '.join(details)}."


def main() -> None:
    """Read a run folder of the evaluation and print its first studies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--studies", type=int, default=10)
    arguments = parser.parse_args()
    stored = json.loads((arguments.run / "config.json").read_text(encoding="utf-8"))
    config = override(
        EvaluateConfig(), {key: json.dumps(stored[key]) for key in ("seed", "kinds", "most_facts")}
    )
    lines = (arguments.run / ANSWERS).read_text(encoding="utf-8").splitlines()[: arguments.studies]
    pairs = draw_pairs(
        Split.TEST, len(lines), seed=config.seed, kinds=config.kinds, most_facts=config.most_facts
    )
    for number, (pair, line) in enumerate(zip(pairs, lines, strict=True), 1):
        if pair.ground is not None:
            print_study(number, pair.ground, json.loads(line))


if __name__ == "__main__":
    main()
