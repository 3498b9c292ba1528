"""Pure. How findings are told apart for the text: outlined, marked with a box, or a label alone."""

from __future__ import annotations

from collections.abc import Sequence

from inference.findings import Analysis, Finding, Presence
from reporting import codes


def name_finding(analysis: Analysis, finding: Finding) -> str:
    """Return the id by which a sentence names a finding: unique among all analyses of a run."""
    return f"{analysis.model.name}/{finding.finding_id}"


def present(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that are there."""
    return [finding for finding in findings if finding.presence is Presence.PRESENT]


def is_outlined(finding: Finding) -> bool:
    """Say whether a present finding is a region: it has a segment, a size or a diameter, and no box."""
    return finding.box is None and (finding.segment_number is not None or bool(finding.measurements))


def is_anatomy(finding: Finding) -> bool:
    """Say whether a finding is a normal structure that was measured."""
    return codes.code_finding(finding.concept).is_anatomy


def number_titles(findings: Sequence[Finding]) -> dict[str, str]:
    """Return the title of each finding by its id: the label, with a number where several share it."""
    titles: dict[str, str] = {}
    labels = [codes.code_finding(finding.concept).label for finding in findings]
    for index, (finding, label) in enumerate(zip(findings, labels, strict=True)):
        number = labels[: index + 1].count(label)
        titles[finding.finding_id] = f"{label} {number}" if labels.count(label) > 1 else label
    return titles
