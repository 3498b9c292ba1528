import pytest

from inference.findings import Laterality, Presence
from reporting.checker import Context, Stated, extract_statements
from reporting.projection import Zone

P, A, U = Presence.PRESENT, Presence.ABSENT, Presence.UNDETERMINED


def said(text):
    return [(one.concept, one.presence) for one in extract_statements(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No nodule, mass or effusion.", [("nodule", A), ("mass", A), ("effusion", A)]),
        ("No effusion but a nodule.", [("effusion", A), ("nodule", P)]),
        ("No effusion and a nodule.", [("effusion", A), ("nodule", P)]),
        ("No effusion or a nodule.", [("effusion", A), ("nodule", A)]),
        ("A nodule without effusion.", [("nodule", P), ("effusion", A)]),
        ("Without effusion, a nodule is seen.", [("effusion", A), ("nodule", P)]),
        ("A nodule rather than a mass.", [("nodule", P), ("mass", A)]),
        ("Lungs are free of nodules.", [("nodule", A)]),
        ("Negative for pneumothorax.", [("pneumothorax", A)]),
        ("Pneumothorax is absent.", [("pneumothorax", A)]),
        ("Effusion has resolved.", [("effusion", A)]),
        ("Effusion was not seen.", [("effusion", A)]),
        ("The nodule is seen and the effusion is not seen.", [("nodule", P), ("effusion", A)]),
        ("No change in the nodule.", [("nodule", P)]),
        ("No increase in the effusion.", [("effusion", P)]),
        ("Not only a nodule but a mass.", [("nodule", P), ("mass", P)]),
        ("Neither nodule nor mass.", [("nodule", A), ("mass", A)]),
        ("Not detected: nodule and mass.", [("nodule", A), ("mass", A)]),
        ("Whether there is a nodule could not be determined.", [("nodule", U)]),
        ("There is a nodule, and whether there is a mass is undetermined.", [("nodule", P), ("mass", U)]),
        ("Cardiac enlargement and pulmonary oedema.", [("cardiomegaly", P), ("edema", P)]),
        ("Pulmonary edema.", [("edema", P)]),
        ("Intracranial hemorrhage.", [("intracranial_haemorrhage", P)]),
        ("No PTX.", [("pneumothorax", A)]),
        ("Cardiomediastinal contours are within limits.", []),
        ("", []),
    ],
)
def test_presence_is_read(text, expected):
    assert said(text) == expected


def test_sides_and_zones_belong_to_their_findings():
    effusion, nodule = extract_statements("Right effusion and a left upper zone nodule.")
    assert (effusion.side, effusion.zone) == (Laterality.RIGHT, None)
    assert (nodule.side, nodule.zone) == (Laterality.LEFT, Zone.UPPER)


def test_a_side_is_shared_by_a_list():
    assert [one.side for one in extract_statements("Nodule and mass in the right lung.")] == [
        Laterality.RIGHT
    ] * 2


@pytest.mark.parametrize(
    ("text", "certainty"),
    [
        ("Possible nodule.", Stated.POSSIBLE),
        ("There may be a nodule.", Stated.POSSIBLE),
        ("A nodule is suspected.", Stated.POSSIBLE),
        ("?nodule", Stated.WEAK),
        ("A nodule cannot be excluded.", Stated.WEAK),
        ("Probable nodule.", Stated.PROBABLE),
        ("Nodule, low confidence.", Stated.LOW),
        ("A nodule is marked.", Stated.ATTRIBUTED),
        ("A nodule is seen.", Stated.PLAIN),
    ],
)
def test_certainty_is_read(text, certainty):
    (statement,) = extract_statements(text)
    assert statement.certainty is certainty
    assert statement.presence is P


def test_doubt_stops_at_the_next_article():
    effusion, nodule = extract_statements("Possible effusion and a nodule.")
    assert (effusion.certainty, nodule.certainty) == (Stated.POSSIBLE, Stated.PLAIN)


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("History of a nodule.", Context.HISTORICAL),
        ("If a nodule persists, repeat.", Context.HYPOTHETICAL),
        ("A nodule is seen.", Context.CURRENT),
    ],
)
def test_time_and_condition_are_read(text, context):
    assert [one.context for one in extract_statements(text)] == [context]


def test_sizes_are_read_with_their_axes():
    (statement,) = extract_statements(
        "Nodule: volume 1.2 mL, longest diameter 34 mm and perpendicular diameter 2.1 cm."
    )
    assert [(size.number, size.unit, size.axis.value) for size in statement.sizes] == [
        ("1.2", "mL", "volume"),
        ("34", "mm", "long_axis"),
        ("2.1", "cm", "perpendicular_axis"),
    ]


@pytest.mark.parametrize("text", ["Two nodules.", "2 nodules.", "Nodule: marked in 2 places over the lung."])
def test_counts_are_read_in_words_and_digits(text):
    assert [one.count for one in extract_statements(text)] == [2]


def test_a_pronoun_goes_on_about_the_finding_before_it():
    (statement,) = extract_statements("A nodule is seen in the right lung. It measures 12 mm.")
    assert [size.number for size in statement.sizes] == ["12"]
