from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting_cases import (
    LABELLER,
    MAKERS,
    MODEL,
    chest_box,
    chest_case,
    label,
    make_case,
    make_detection_case,
    make_label_case,
    make_refused_case,
    make_structure_case,
    mark,
)

from inference.findings import (
    Analysis,
    Caveat,
    Doubt,
    Finding,
    Laterality,
    Measurement,
    Presence,
    Quantity,
    SeriesInput,
)
from reporting.comparison import (
    Change,
    Course,
    Dimension,
    SizeChange,
    compare_with_prior,
    describe_changes,
    describe_no_change,
)
from reporting.projection import read_views

INVERSE = {
    Course.NEW: Course.RESOLVED,
    Course.RESOLVED: Course.NEW,
    Course.INCREASED: Course.DECREASED,
    Course.DECREASED: Course.INCREASED,
    Course.UNCHANGED: Course.UNCHANGED,
    Course.UNCERTAIN: Course.UNCERTAIN,
}


def lesion(number: int, volume_ml: float, side: Laterality | None = Laterality.LEFT, **further) -> Finding:
    values = {
        "finding_id": f"F{number}",
        "concept": "neoplasm",
        "site": "brain",
        "presence": Presence.PRESENT,
        "laterality": side,
        "segment_number": number,
        "measurements": (Measurement(quantity=Quantity.VOLUME, value=volume_ml, unit="mL"),),
    }
    return Finding(**(values | further))


def with_diameters(finding: Finding, long_mm: float, perpendicular_mm: float) -> Finding:
    diameters = (
        Measurement(quantity=Quantity.LONG_AXIS, value=long_mm, unit="mm"),
        Measurement(quantity=Quantity.PERPENDICULAR_AXIS, value=perpendicular_mm, unit="mm"),
    )
    return replace(finding, measurements=(*finding.measurements, *diameters))


def reading(*findings: Finding, **further) -> Analysis:
    values = {
        "model": MODEL,
        "study_uid": "1.2.3",
        "inputs": (SeriesInput(role="flair", series_uid="1.2.3.1", frames=()),),
        "findings": findings,
    }
    return Analysis(**(values | further))


def courses(changes: tuple[Change, ...]) -> list[Course]:
    return [change.course for change in changes]


def text_of(changes: tuple[Change, ...]) -> str:
    return " ".join(sentence.text for sentence in describe_changes(changes))


volumes = st.floats(0.001, 500)
sides = st.sampled_from([*Laterality, None])
places = st.tuples(*[st.floats(-90, 90)] * 3)
lesions = st.lists(st.tuples(volumes, sides, st.none() | places, volumes), max_size=5)


def drawn(values) -> tuple[Analysis, dict[str, tuple[float, float, float]]]:
    """A reading of drawn lesions, and where those lie of which that is known."""
    findings = [
        with_diameters(lesion(n, volume, side), 10 * axis ** (1 / 3), 8 * axis ** (1 / 3))
        for n, (volume, side, _, axis) in enumerate(values, 1)
    ]
    known = {f"{MODEL.name}/F{n}": place for n, (_, _, place, _) in enumerate(values, 1) if place is not None}
    return reading(*findings), known


@settings(max_examples=40)
@given(lesions)
def test_a_study_compared_with_itself_shows_no_change(values) -> None:
    analysis, known = drawn(values)
    changes = compare_with_prior([analysis], [analysis], 5, places=known, prior_places=known)
    assert set(courses(changes)) <= {Course.UNCHANGED}
    assert all(size.difference == 0 for change in changes for size in change.sizes)
    assert len([c for c in changes if not c.is_total]) == len(values)


@pytest.mark.parametrize("make", MAKERS)
def test_every_kind_of_study_compared_with_itself_shows_no_change(make) -> None:
    analysis = make().analysis
    assert set(courses(compare_with_prior([analysis], [analysis], 0))) <= {Course.UNCHANGED}


@settings(max_examples=40)
@given(lesions, lesions)
def test_exchanging_the_studies_gives_the_inverse(values, others) -> None:
    (one, here), (other, there) = drawn(values), drawn(others)
    forth = compare_with_prior([one], [other], 5, places=here, prior_places=there)
    back = compare_with_prior([other], [one], 5, places=there, prior_places=here)
    assert sorted(map(str, courses(forth))) == sorted(str(INVERSE[course]) for course in courses(back))
    totals = [[c.sizes[0] for c in changes if c.is_total] for changes in (forth, back)]
    for size, inverse in zip(*totals, strict=True):
        assert size.difference == pytest.approx(-inverse.difference)


@settings(max_examples=40)
@given(lesions, lesions)
def test_every_lesion_of_both_readings_appears_once(values, others) -> None:
    (one, here), (other, there) = drawn(values), drawn(others)
    changes = compare_with_prior([one], [other], 5, places=here, prior_places=there)
    single = [change for change in changes if not change.is_total]
    assert sorted(c.now.finding_id for c in single if c.now) == sorted(f.finding_id for f in one.findings)
    assert sorted(c.before.finding_id for c in single if c.before) == sorted(
        f.finding_id for f in other.findings
    )


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.sampled_from(Dimension))
def test_a_size_change_and_its_inverse_are_opposite(before: float, now: float, dimension: Dimension) -> None:
    forth = SizeChange(dimension=dimension, before=before, now=now)
    back = SizeChange(dimension=dimension, before=now, now=before)
    assert forth.course is INVERSE[back.course]


@given(st.floats(0.001, 1e3), st.floats(0.001, 1e3))
def test_units_make_no_difference(now_ml: float, before_ml: float) -> None:
    def in_mm3(number: int, volume_ml: float) -> Finding:
        volume = Measurement(quantity=Quantity.VOLUME, value=1000 * volume_ml, unit="mm3")
        return lesion(number, 0, measurements=(volume,))

    plain = compare_with_prior([reading(lesion(1, now_ml))], [reading(lesion(1, before_ml))], 3)
    scaled = compare_with_prior([reading(in_mm3(1, now_ml))], [reading(lesion(1, before_ml))], 3)
    assert scaled[0].sizes[0].now == pytest.approx(plain[0].sizes[0].now)
    assert scaled[0].sizes[0].unit == "mL"


def test_growth_is_said_with_both_volumes_the_percentage_and_the_days() -> None:
    changes = compare_with_prior([reading(lesion(1, 15.1))], [reading(lesion(1, 12.3))], 12)
    first, *_ = describe_changes(changes)
    assert first.text == (
        "Compared with the study of 12 days earlier: the FLAIR signal abnormality on the left side of the "
        "brain grew from 12.3 mL to 15.1 mL (+23 %)."
    )
    assert first.finding_ids == (f"{MODEL.name}/F1",)


def test_what_is_within_the_uncertainty_of_measurement_is_unchanged() -> None:
    changes = compare_with_prior([reading(lesion(1, 13.0))], [reading(lesion(1, 12.3))], 12)
    assert courses(changes) == [Course.UNCHANGED]
    assert "unchanged within the uncertainty of measurement: 13.0 mL now, 12.3 mL then (+6 %)" in text_of(
        changes
    )


@pytest.mark.parametrize(
    ("dimension", "before", "now", "course"),
    [
        (Dimension.VOLUME, 10.0, 11.9, Course.UNCHANGED),
        (Dimension.VOLUME, 10.0, 12.0, Course.INCREASED),
        (Dimension.VOLUME, 12.0, 10.0, Course.DECREASED),
        (Dimension.VOLUME, 0.1, 0.25, Course.UNCHANGED),
        (Dimension.PRODUCT, 400.0, 499.0, Course.UNCHANGED),
        (Dimension.PRODUCT, 400.0, 500.0, Course.INCREASED),
        (Dimension.LONG_AXIS, 10.0, 13.0, Course.UNCHANGED),
        (Dimension.LONG_AXIS, 20.0, 26.0, Course.INCREASED),
        (Dimension.LONG_AXIS, 50.0, 56.0, Course.UNCHANGED),
    ],
)
def test_thresholds(dimension: Dimension, before: float, now: float, course: Course) -> None:
    assert SizeChange(dimension=dimension, before=before, now=now).course is course


def test_the_product_of_diameters_is_compared_too() -> None:
    now, before = with_diameters(lesion(1, 20.0), 40, 30), with_diameters(lesion(1, 12.0), 35, 25)
    (change,) = compare_with_prior([reading(now)], [reading(before)], 90)
    product = next(size for size in change.sizes if size.dimension is Dimension.PRODUCT)
    assert (product.before, product.now) == (875.0, 1200.0)
    assert "The product of its diameters went from 8.8 cm2 to 12.0 cm2 (+37 %)" in text_of((change,))


def test_measures_that_disagree_decide_nothing() -> None:
    now, before = with_diameters(lesion(1, 20.0), 20, 15), with_diameters(lesion(1, 12.0), 35, 25)
    (change,) = compare_with_prior([reading(now)], [reading(before)], 90)
    assert change.course is Course.UNCERTAIN
    assert "cannot be said, because its measures disagree" in text_of((change,))


def test_what_is_new_and_what_is_gone() -> None:
    left, right = lesion(1, 5.0, Laterality.LEFT), lesion(1, 8.0, Laterality.RIGHT)
    changes = compare_with_prior([reading(left)], [reading(right)], 30)
    assert courses(changes) == [Course.NEW, Course.RESOLVED]
    said = text_of(changes)
    assert "on the left side of the brain (5.0 mL in volume) was not outlined then: it may be new." in said
    assert "outlined then on the right side of the brain (8.0 mL in volume) is not outlined now." in said


def test_lesions_of_one_side_are_paired_by_place_before_size() -> None:
    now = reading(lesion(1, 3.0), lesion(2, 10.0))
    before = reading(lesion(1, 9.0), lesion(2, 4.0))
    name = MODEL.name
    front, back = (20.0, -50.0, 10.0), (20.0, 45.0, 10.0)
    by_size = compare_with_prior([now], [before], 9)
    by_place = compare_with_prior(
        [now],
        [before],
        9,
        places={f"{name}/F1": front, f"{name}/F2": back},
        prior_places={f"{name}/F1": front, f"{name}/F2": back},
    )
    pairs = [[(c.now.finding_id, c.before.finding_id) for c in cs if c.now] for cs in (by_size, by_place)]
    assert pairs == [[("F1", "F2"), ("F2", "F1")], [("F1", "F1"), ("F2", "F2")]]


def test_a_lesion_that_splits_is_told_as_a_total() -> None:
    now, before = reading(lesion(1, 6.0), lesion(2, 6.0)), reading(lesion(1, 12.0))
    total = next(c for c in compare_with_prior([now], [before], 9) if c.is_total)
    assert total.course is Course.UNCHANGED
    assert total.finding_ids == ()


def test_another_version_is_compared_and_said() -> None:
    older = replace(MODEL, version="0.9.0", weights_sha256="0" * 64)
    changes = compare_with_prior([reading(lesion(1, 5))], [reading(lesion(1, 5), model=older)], 9)
    assert f"version 0.9.0 of the algorithm {MODEL.name} and this one by version {MODEL.version}" in text_of(
        changes
    )


def test_another_input_and_a_doubt_are_said() -> None:
    doubt = Doubt(caveat=Caveat.OUT_OF_DISTRIBUTION, sentence="Odd slices.")
    before = reading(lesion(1, 5), substitutions=(("pre", "flair"),), doubts=(doubt,))
    said = text_of(compare_with_prior([reading(lesion(1, 5))], [before], 9))
    assert "did not read the same kinds of series" in said
    assert "must be doubted" in said


def test_other_models_and_refusals_are_not_compared() -> None:
    other = reading(lesion(1, 5), model=replace(MODEL, name="another"))
    refused = make_refused_case().analysis
    assert compare_with_prior([reading(lesion(1, 5))], [other], 9) == ()
    assert compare_with_prior([refused], [replace(refused, doubts=())], 9) == ()
    assert compare_with_prior([replace(refused, doubts=())], [refused], 9) == ()


def test_normal_structures_are_left_out() -> None:
    analysis = make_structure_case().analysis
    assert compare_with_prior([analysis], [analysis], 9) == ()


def test_labels_come_go_and_stay() -> None:
    def film(effusion: Presence, p: float, nodule: Presence, q: float) -> Analysis:
        findings = (
            label(1, "effusion", "pleura", effusion, p),
            label(2, "nodule", "lung", nodule, q),
            label(3, "mass", "lung", Presence.PRESENT, 0.8),
        )
        return chest_case(LABELLER, findings).analysis

    yes, no = Presence.PRESENT, Presence.ABSENT
    changes = compare_with_prior([film(yes, 0.9, no, 0.1)], [film(no, 0.2, yes, 0.9)], 2)
    assert courses(changes) == [Course.NEW, Course.RESOLVED, Course.UNCHANGED]
    said = text_of(changes)
    assert "pleural effusion is called present now and was called absent then" in said
    assert "Nodule was called present then and is called absent now" in said
    assert "Mass is called present again (probability 0.80 then, 0.80 now)." in said


def test_a_label_near_its_threshold_decides_nothing() -> None:
    film = make_label_case().analysis
    now = replace(film, findings=(label(1, "effusion", "pleura", Presence.PRESENT, 0.55),))
    before = replace(film, findings=(label(1, "effusion", "pleura", Presence.ABSENT, 0.45),))
    changes = compare_with_prior([now], [before], 2)
    assert courses(changes) == [Course.UNCERTAIN]
    assert "whether pleural effusion is new cannot be said" in text_of(changes)


def test_a_label_that_the_earlier_version_did_not_know_is_not_called_new() -> None:
    film = make_label_case().analysis
    assert compare_with_prior([film], [replace(film, findings=())], 2) == ()


def test_marks_name_side_and_zone_of_this_film() -> None:
    case = make_detection_case()
    before = replace(case.analysis, findings=case.analysis.findings[1:])
    changes = compare_with_prior([case.analysis], [before], 4)
    said = " ".join(s.text for s in describe_changes(changes, read_views(case.sources)))
    assert "the cardiomegaly over the heart was not marked then: it may be new." in said
    assert "over the left pleural space, lower zone was marked then too; sizes are not compared." in said


def test_marks_far_apart_are_two() -> None:
    def film(left: float) -> Analysis:
        return chest_case(
            MODEL, (mark(1, "nodule", "lung", chest_box(left, 10, left + 8, 18), 0.8),)
        ).analysis

    name = f"{MODEL.name}/F1"
    changes = compare_with_prior(
        [film(10)], [film(60)], 4, places={name: (-120.0, 0.0, 80.0)}, prior_places={name: (110.0, 0.0, 80.0)}
    )
    assert courses(changes) == [Course.NEW, Course.RESOLVED]


@pytest.mark.parametrize(
    ("days", "words"), [(0, "the earlier study of the same day"), (1, "1 day earlier"), (2, "2 days earlier")]
)
def test_days_in_words(days: int, words: str) -> None:
    changes = compare_with_prior([reading(lesion(1, 5))], [reading(lesion(1, 5))], days)
    assert words in describe_changes(changes)[0].text
    assert words in describe_no_change(days)[0].text


def test_no_changes_no_sentences() -> None:
    assert describe_changes(()) == ()


def test_the_pristine_case_reads_well() -> None:
    analysis = make_case().analysis
    said = text_of(compare_with_prior([analysis], [analysis], 30))
    assert said.count("Compared with") == 1
    assert "Counted as a change are at least 20 % more in volume" in said
