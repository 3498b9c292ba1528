"""How well the text checker tells faithful texts from unfaithful ones, and what it costs.

Three sets, told apart in the table: texts written by hand (``tests/reporting/checker/cases/``), the part
of them that was held back while the checker was made, and texts of the report grammar with one mutation
each (``tests/checker_mutations.py``). An unfaithful text that passes is a danger; a faithful one that is
refused costs a sentence of style, because the draft's stands in for it. With ``--openi`` the extractor
reads real reports (``../shared/data/openi_reports``), for reading by eye.

    .venv/bin/python benchmarks/checker.py --studies 1000
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from random import Random

_ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]

from checker_cases import CheckerCase, read_cases  # noqa: E402
from checker_mutations import MUTATIONS  # noqa: E402

from reporting.checker import Statement, check_sentences, extract_statements  # noqa: E402
from reporting.language.grammar import draw_facts, write_answer_sentences  # noqa: E402

_QUANTILE = 1.96


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a share (Wilson 1927)."""
    if not trials:
        return 0.0, 1.0
    share, z2 = hits / trials, _QUANTILE**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _QUANTILE * sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000, help="drawn studies for the generated set")
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--held-back", action="store_true", help="also the part that was held back")
    parser.add_argument("--openi", type=Path, help="NLMCXR_reports.tgz: print statements of its sentences")
    parser.add_argument("--sentences", type=int, default=100, help="how many sentences of it")
    options = parser.parse_args()
    if options.openi:
        read_reports(options.openi, options.sentences, options.seed)
        return
    report_cases("Written by hand", [*read_cases("unfaithful"), *read_cases("faithful")])
    if options.held_back:
        report_cases("Written by hand, held back", read_cases("held_back"))
        report_cases("Written by hand, second look", read_cases("second_look"))
        report_cases("Written by hand, third look", read_cases("third_look"))
        report_cases("Written by hand, fourth look", read_cases("fourth_look"))
    report_generated(options.studies, options.seed)


def report_cases(title: str, cases: Sequence[CheckerCase]) -> None:
    wrong: dict[tuple[bool, str], int] = defaultdict(int)
    total: Counter[tuple[bool, str]] = Counter()
    for case in cases:
        key = case.is_faithful, case.group
        total[key] += 1
        wrong[key] += bool(check_sentences(case.sentences, case.ground)) == case.is_faithful
    print_table(title, [(*key, wrong[key], total[key]) for key in total])


def report_generated(studies: int, seed: int) -> None:
    wrong: dict[tuple[bool, str], int] = defaultdict(int)
    total: Counter[tuple[bool, str]] = Counter()
    seconds = []
    for number in range(studies):
        ground = draw_facts(Random(seed + number))
        text = write_answer_sentences(ground, Random(seed - number))
        start = time.process_time()
        faults = check_sentences(text, ground)
        seconds.append(time.process_time() - start)
        total[True, "report grammar"] += 1
        wrong[True, "report grammar"] += bool(faults)
        if faults:
            continue  # what is refused unchanged says nothing about the change
        for kind, mutate in MUTATIONS.items():
            changed = mutate(text, ground, Random(seed + number))
            if changed is not None and changed != text:
                total[False, kind] += 1
                wrong[False, kind] += not check_sentences(changed, ground)
    print_table("Generated, one mutation each", [(*key, wrong[key], total[key]) for key in total])
    seconds.sort()
    median, high = (1000 * seconds[int(share * len(seconds))] for share in (0.5, 0.95))
    print(f"\nA report takes {median:.1f} ms (median), {high:.1f} ms (95th percentile).")


def print_table(title: str, rows: Sequence[tuple[bool, str, int, int]]) -> None:
    print(f"\n{title}\n")
    print("| What | Texts | Wrong | Share | 95 % interval |")
    print("|---|---|---|---|---|")
    for is_faithful, name in ((False, "unfaithful, let through"), (True, "faithful, refused")):
        mine = [(group, wrong, total) for faithful, group, wrong, total in rows if faithful is is_faithful]
        for group, wrong, total in mine:
            print(_row(f"{group.replace('_', ' ')}", wrong, total))
        print(_row(f"**{name}**", sum(one[1] for one in mine), sum(one[2] for one in mine)))


def _row(name: str, wrong: int, total: int) -> str:
    low, high = wilson(wrong, total)
    share = 100 * wrong / total if total else 0.0
    return f"| {name} | {total} | {wrong} | {share:.1f} % | {100 * low:.1f} to {100 * high:.1f} % |"


def read_reports(archive: Path, number: int, seed: int) -> None:
    """Print the statements of sentences drawn from real reports."""
    sentences = sorted(set(_sentences_of(archive)))
    drawn = Random(seed).sample(sentences, len(sentences))
    shown = 0
    for sentence in drawn:
        statements = extract_statements(sentence)
        if statements and shown < number:
            shown += 1
            print(f"{shown:3} {sentence}\n    {'; '.join(_describe(one) for one in statements)}")
    read = sum(bool(extract_statements(sentence)) for sentence in drawn)
    print(f"\n{len(drawn)} distinct sentences, {read} with a finding of the lexicon.")


def _sentences_of(archive: Path) -> Iterator[str]:
    with tarfile.open(archive) as files:
        for member in files:
            handle = files.extractfile(member) if member.name.endswith(".xml") else None
            if handle is None:
                continue
            xml = handle.read().decode("utf-8", "replace")
            for section in re.findall(
                r'<AbstractText Label="(?:FINDINGS|IMPRESSION)">(.*?)</AbstractText>', xml, re.DOTALL
            ):
                yield from (part.strip() for part in re.split(r"(?<=[.?])\s+", section) if part.strip())


def _describe(statement: Statement) -> str:
    parts = [statement.concept or "any finding", statement.presence.value]
    parts += [part.value for part in (statement.side, statement.zone) if part is not None]
    parts += [] if statement.certainty.value == "plain" else [statement.certainty.value]
    parts += [] if statement.context.value == "current" else [statement.context.value]
    parts += [f"{size.number} {size.unit}" for size in statement.sizes]
    return " ".join(parts)


if __name__ == "__main__":
    main()
