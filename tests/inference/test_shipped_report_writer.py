"""The report writer under models/: it loads, and it words what its vocabulary holds."""

from __future__ import annotations

from pathlib import Path

from inference.packages import load_package
from inference.rehearsal import rehearse
from inference.runner import Runner

FOLDER = Path(__file__).parents[2] / "models" / "chest-xray-report" / "1.1.0"


def test_the_shipped_writer_words_a_drawn_chest_and_keeps_to_the_size_of_files() -> None:
    package = load_package(FOLDER)
    outcome = rehearse(package, Runner("cpu"))
    assert outcome.analysis.findings == ()
    assert outcome.crude_report
    words = {word for sentence in outcome.crude_report for word in sentence.lower().strip(".").split()}
    assert words <= set(package.card.options["vocabulary"])  # type: ignore[arg-type]
    assert all(path.stat().st_size < 17_000_000 for path in FOLDER.iterdir())
