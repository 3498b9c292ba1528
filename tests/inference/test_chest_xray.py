from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_node.chest_phantom import chest_study
from inference.training.chest_xray import (
    NIH_LABELS,
    ChestXrayDataError,
    Film,
    MarkedBox,
    find_layout,
    fuse_readers,
    label_matrix,
    merge_readers,
    read_film,
    read_films,
    split_patients,
)

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cxr"


def grey_picture(path: Path, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(side * side, dtype=np.uint32).reshape(side, side).astype(np.uint8)).save(path)


def nih_subset(root: Path) -> Path:
    for name in ("a", "b", "c"):
        grey_picture(root / "images" / f"{name}.png")
    columns = ",".join((*NIH_LABELS, "No_Finding"))
    rows = [
        ("a", "1", "PA", "45", ["Mass"]),
        ("b", "1", "AP", "411", ["Mass", "Effusion"]),
        ("c", "2", "PA", "050Y", []),
    ]
    lines = [f"image,patient_id,view,age,sex,{columns}"]
    for name, patient, view, age, labels in rows:
        ones = [str(int(label in labels)) for label in NIH_LABELS] + [str(int(not labels))]
        lines.append(f"images/{name}.png,{patient},{view},{age},F,{','.join(ones)}")
    (root / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    (root / "boxes.csv").write_text("image,label,x,y,w,h\nimages/a.png,Mass,2,3,10,20\n", encoding="utf-8")
    (root / "rsna_pneumonia.csv").write_text(
        "image,rsna_patient_id,rsna_class,target,x,y,w,h\n"
        "images/b.png,z,Lung Opacity,1,1,2,3,4\nimages/c.png,y,Normal,0,,,,\n",
        encoding="utf-8",
    )
    return root


def test_the_subset_gives_labels_boxes_and_their_source(tmp_path: Path) -> None:
    a, b, c = read_films(nih_subset(tmp_path))
    assert a.labels == {"Mass"}
    assert a.boxes == (MarkedBox(name="Mass", left=2, top=3, right=12, bottom=23, source="nih"),)
    assert (b.boxes[0].name, b.boxes[0].source, b.age_years) == ("Lung_Opacity", "rsna", None)
    assert c.is_normal
    assert c.age_years == 50
    assert a.fold == b.fold
    assert label_matrix([a, c])[:, NIH_LABELS.index("Mass")].tolist() == [1.0, 0.0]
    assert read_film(a).grey.shape == (32, 32)


def test_the_original_nih_layout_is_read_with_its_strange_heading(tmp_path: Path) -> None:
    grey_picture(tmp_path / "images_001" / "00000001_000.png")
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
        "00000001_000.png,Infiltration|Mass,0,1,58,M,PA\n00000002_000.png,No Finding,0,2,80,M,AP\n",
        encoding="utf-8",
    )
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Infiltrate,10,20,30,40,,,\n",
        encoding="utf-8",
    )
    (film,) = read_films(tmp_path)
    assert film.labels == {"Infiltration", "Mass"}
    assert film.boxes[0].name == "Infiltration"
    assert film.boxes[0].corners == (10, 20, 40, 60)


def test_vindr_readers_are_merged_and_no_finding_is_dropped(tmp_path: Path) -> None:
    (study,) = [chest_study(1, matrix=64)]
    dataset = study.datasets[0]
    for keyword in ("SOPClassUID", "Modality", "PatientID"):
        del dataset[keyword]
    dataset.save_as(tmp_path / "one.dicom", enforce_file_format=True)
    grey_picture(tmp_path / "two.png")
    (tmp_path / "train.csv").write_text(
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "one,Pleural effusion,10,R1,10,10,30,30\none,Pleural effusion,10,R2,12,9,31,29\n"
        "one,Lung Opacity,7,R3,11,10,30,30\none,No finding,14,R4,,,,\n"
        "two,No finding,14,R1,,,,\nthree,Mass,1,R1,1,2,3,4\n",
        encoding="utf-8",
    )
    one, two = read_films(tmp_path)
    assert {box.name for box in one.boxes} == {"Effusion", "Lung_Opacity"}
    assert {box.corners for box in one.boxes} == {(10, 9, 31, 30)}
    assert one.labels == {"Effusion", "Lung_Opacity"}
    assert two.is_normal
    assert two.is_fully_boxed
    assert read_film(one).corners.shape == (2, 4)
    assert 0 <= read_film(one).grey.min() < read_film(one).grey.max() <= 1
    fused = read_films(tmp_path, readers="wbf")[0].boxes
    assert [box.name for box in fused] == ["Effusion", "Lung_Opacity"]
    assert fused[0].corners == pytest.approx((11, 9.5, 30.5, 29.5), abs=0.01)


def test_rsna_opacities_carry_the_view_of_their_image(tmp_path: Path) -> None:
    chest_study(2, matrix=48, views=("AP",)).datasets[0].save_as(
        tmp_path / "p1.dcm", enforce_file_format=True
    )
    (tmp_path / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\np1,1,2,3,4,1\np1,5,6,7,8,1\n", encoding="utf-8"
    )
    (film,) = read_films(tmp_path)
    assert (film.view, film.labels, len(film.boxes)) == ("AP", None, 2)
    assert np.isnan(label_matrix([film])).all()


def test_boxes_of_a_turned_film_lie_on_the_turned_picture(tmp_path: Path) -> None:
    dataset = chest_study(3, matrix=64).datasets[0]
    dataset.PatientOrientation = ["R", "F"]
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    box = MarkedBox(name="Mass", left=0, top=5, right=10, bottom=9, source="nih")
    film = Film(path=tmp_path / "x.dcm", patient_id="1", view="PA", source="nih", boxes=(box,))
    assert read_film(film).corners.tolist() == [[54.0, 5.0, 64.0, 9.0]]


def mark(name: str, *corners: float, reader: str = "") -> MarkedBox:
    left, top, right, bottom = corners
    return MarkedBox(name=name, left=left, top=top, right=right, bottom=bottom, source="vindr", reader=reader)


def test_boxes_of_other_shape_or_place_stay_apart_and_order_does_not_matter() -> None:
    boxes = [
        mark("Mass", 0, 0, 20, 20),
        mark("Mass", 0, 0, 20, 11),  # overlaps by more than half, but is much flatter
        mark("Mass", 100, 100, 120, 120),
        mark("Mass", 101, 100, 121, 120),
        mark("Mass", 101, 100, 121, 120),
    ]
    merged = merge_readers(boxes)
    assert [box.corners for box in merged] == [(0, 0, 20, 11), (0, 0, 20, 20), (100, 100, 121, 120)]
    random.Random(1).shuffle(boxes)
    assert merge_readers(boxes) == merged


def test_fusing_nothing_gives_nothing() -> None:
    assert fuse_readers(()) == ()
    assert merge_readers(()) == ()


def films(count: int) -> list[Film]:
    rng = random.Random(0)
    return [
        Film(
            path=Path(f"{i}.png"),
            patient_id=str(i // 2),
            view=rng.choice(("PA", "AP")),
            source="nih",
            labels=frozenset({"Mass"} if i % 7 == 0 else ()),
        )
        for i in range(count)
    ]


def test_the_split_is_by_patient_whatever_the_order_and_stratified() -> None:
    every = films(400)
    split = split_patients(every)
    assert not set(split.training) & set(split.validation)
    assert len(split.validation) == pytest.approx(40, abs=2)
    shuffled = every[:]
    random.Random(3).shuffle(shuffled)
    assert split_patients(shuffled) == split
    with_mass = {film.patient_id for film in every if film.labels}
    assert len(with_mass & set(split.validation)) == pytest.approx(0.2 * len(with_mass), abs=2)


def test_an_unknown_folder_or_broken_table_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ChestXrayDataError, match=r"labels\.csv"):
        find_layout(tmp_path)
    nih_subset(tmp_path)
    (tmp_path / "boxes.csv").write_text(
        "image,label,x,y,w,h\nimages/a.png,Mass,2,3,ten,20\n", encoding="utf-8"
    )
    with pytest.raises(ChestXrayDataError, match="line 2"):
        read_films(tmp_path)
    missing = Film(path=tmp_path / "no.png", patient_id="1", view="", source="nih")
    with pytest.raises(ChestXrayDataError, match="missing"):
        read_film(missing)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/cxr is not there")
def test_the_real_subset_splits_every_class_onto_both_sides() -> None:
    every = read_films(DATA)
    assert len(every) == 1418
    boxes = {
        fold: {box.name for film in every if film.fold == fold for box in film.boxes}
        for fold in ("training", "validation")
    }
    assert boxes["training"] == boxes["validation"]
    assert len(boxes["training"]) == 9
    validation = {film.patient_id for film in every if film.fold == "validation"}
    assert len(validation) == 165
