"""The indications of the Open-i reports, parsed at run time: real orders, de-identified as XXXX."""

from __future__ import annotations

import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from notes_scores import as_source

from reporting.clinical import SourceKind, gather, load_lexicon

ARCHIVE = Path(__file__).resolve().parents[4] / "shared" / "data" / "openi_reports" / "NLMCXR_reports.tgz"

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not ARCHIVE.is_file(), reason="needs ../shared/data/openi_reports"),
]


def indications():
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if member.name.endswith(".xml"):
                tree = ET.parse(archive.extractfile(member))
                yield from (
                    element.text
                    for element in tree.iter("AbstractText")
                    if element.get("Label") == "INDICATION" and element.text
                )


def test_real_indications_are_read_and_leave_as_words_of_the_lexicon_alone(reader):
    said, silent, total = 0, 0, 0
    for text in indications():
        total += 1
        problems = reader.read(as_source(text))
        said += len(problems)
        silent += not problems
        assert all(problem.concept in load_lexicon().entries for problem in problems)
        assert "XXXX" not in " ".join(gather(problems, [SourceKind.ORDER]).for_report())
    assert total > 3800
    assert said > 4000
    assert silent / total < 0.21  # of these, most have their one word removed
