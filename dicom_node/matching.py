"""Pure. Does a rule match a study, and if not: why not, in words."""

from __future__ import annotations

from collections.abc import Iterator

from dicom_node.globs import list_patterns, matches_any
from dicom_node.rules import Conditions
from dicom_node.sop_classes import name_sop_class
from dicom_node.study import Series, SOPClassUID, Study


def find_obstacles(study: Study, conditions: Conditions) -> tuple[str, ...]:
    """Return what keeps a study from matching; empty if it matches.

    One series must meet all conditions on series. If none does, the obstacles
    are those of the series that came closest.
    """
    of_study = tuple(_study_obstacles(study, conditions))
    if not study.series:
        return (*of_study, "the study has no readable series")
    candidates = sorted(
        (tuple(_series_obstacles(series, conditions)) for series in study.series),
        key=lambda obstacles: (len(obstacles), obstacles),
    )
    return of_study + candidates[0]


def _study_obstacles(study: Study, conditions: Conditions) -> Iterator[str]:
    if conditions.source_ae and not matches_any(study.source_ae, conditions.source_ae):
        yield f"source AE is {study.source_ae or 'empty'}, rule wants {list_patterns(conditions.source_ae)}"
    wanted = conditions.study_description
    if wanted and not matches_any(study.description, wanted):
        yield f"study description {_quoted(study.description)}, rule wants {list_patterns(wanted)}"


def _series_obstacles(series: Series, conditions: Conditions) -> Iterator[str]:
    if conditions.modality and series.modality.upper() not in conditions.modality:
        yield f"modality is {series.modality or 'empty'}, rule wants {list_patterns(conditions.modality)}"
    if conditions.sop_class and not series.sop_classes & set(conditions.sop_class):
        wanted_classes = list_patterns(name_sop_class(uid) for uid in conditions.sop_class)
        yield f"SOP Class is {_class_names(series.sop_classes)}, rule wants {wanted_classes}"
    if conditions.body_part and not matches_any(series.body_part, conditions.body_part):
        yield f"body part is {series.body_part or 'empty'}, rule wants {list_patterns(conditions.body_part)}"
    wanted = conditions.series_description
    if wanted and not matches_any(series.description, wanted):
        yield f"series description {_quoted(series.description)}, rule wants {list_patterns(wanted)}"
    for keyword, patterns in conditions.tags:
        if keyword not in series.header:
            yield f"{keyword} is absent, rule wants {list_patterns(patterns)}"
        elif not _matches_values(series.header[keyword], patterns):
            # The value may be about the patient: it stays in the header.
            yield f"{keyword} has another value, rule wants {list_patterns(patterns)}"
    if series.number_of_images < conditions.min_images:
        yield f"series has {series.number_of_images} images, rule wants at least {conditions.min_images}"


def _matches_values(text: str, patterns: tuple[str, ...]) -> bool:
    """Match the whole element, or one of its values."""
    return matches_any(text, patterns) or any(matches_any(value, patterns) for value in text.split("\\"))


def _quoted(text: str) -> str:
    return f"is {text!r}" if text else "is empty"


def _class_names(uids: frozenset[SOPClassUID]) -> str:
    return list_patterns(sorted(name_sop_class(uid) for uid in uids)) or "unknown"
