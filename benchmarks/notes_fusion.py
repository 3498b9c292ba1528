"""Does a clinical note add to a chest X-ray? Image, text and both, on the 94 real pairs of ``cxr_notes``.

The question is COVID-19 or another pneumonia: the one label that the pairs have. A logistic regression reads
principal components of the image (features of the shipped chest-xray-labels network) and of the note; folds
keep patients apart, predictions are averaged over repeated splits and then over a patient's images, and
intervals are a bootstrap over patients. The notes were written after the diagnosis, and often name it, so
each text is measured as written, with the words that give the answer away masked, and as the node would have
it: problems of the closed vocabulary, without diagnoses of the answer and without what the image showed.

    python benchmarks/notes_fusion.py                       about two minutes on two cores
    python benchmarks/notes_fusion.py --encoder FOLDER      a ClinicalBERT-like folder in place of MiniLM
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inference.packages import discover
from inference.radiograph_preparation import prepare_grey
from inference.runner import Runner
from reporting.clinical import NoteReader, Polarity, SourceKind, SourceText, Time, load_lexicon
from reporting.clinical.lexicon import ProblemKind
from reporting.language.note_encoder import open_note_encoder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cxr_notes"
MODEL = "chest-xray-labels"
FOLDS, REPEATS, RESAMPLES = 5, 20, 2000
COMPONENTS = 12
#: Words that name the answer, its test, or the outbreak it came from.
GIVEAWAYS = re.compile(
    r"covid\S*|corona\S*|n-?cov\S*|2019-ncov\S*|sars\S*|wuhan\S*|hubei|china|chinese|macau|ital\w+|travel\w*|"
    r"trip|epidemic|pandemic|outbreak|contact\w*|(rt-)?pcr|swab\w*|pneumocyst\w*|jiro?vec\w*|pcp|pjp|legion\w*|"
    r"strep\w*|pneumococc\w*|e\.? ?coli|escherichia|klebsiella|gram\W\w+|cultur\w*|ards|"
    r"acute respiratory distress( syndrome)?",
    re.IGNORECASE,
)
#: Entries of the lexicon that are the answer.
ANSWERS = {"covid", "pneumocystis", "legionella", "ards", "pneumonia", "loss_of_smell"}
#: Kinds that an order has; findings of the image and lines come from reading it.
ORDER_KINDS = {ProblemKind.SYMPTOM, ProblemKind.DISEASE, ProblemKind.EXPOSURE, ProblemKind.PROCEDURE}


def image_features(files: list[Path]) -> np.ndarray:
    """Return (N, C) float32 features, averaged over the last maps of the shipped network."""
    package = discover(Path(__file__).resolve().parents[1] / "models").package(MODEL)
    matrix = package.card.input.matrix
    images = np.stack(
        [prepare_grey(np.asarray(Image.open(f).convert("L"), np.float32), matrix) for f in files]
    )
    with Runner().borrow(package) as (network, device), torch.inference_mode():
        maps = [network.features(image[None].to(device)) for image in torch.from_numpy(images)]
    return np.concatenate([one.mean(dim=(2, 3)).float().cpu().numpy() for one in maps])


def order_features(notes: list[str]) -> np.ndarray:
    """Return (N, problems) float32: 1 present, -1 denied, 0.5 earlier or possible, 0 not said."""
    reader, lexicon = NoteReader(), load_lexicon()
    keys = [k for k, entry in lexicon.entries.items() if entry.kind in ORDER_KINDS and k not in ANSWERS]
    place = {key: i for i, key in enumerate(keys)}
    table = np.zeros((len(notes), len(keys)), np.float32)
    for row, note in enumerate(notes):
        for problem in reader.read(SourceText(kind=SourceKind.PASTED, origin="note", text=note)):
            if problem.concept in place:
                certain = 1.0 if problem.time is Time.CURRENT else 0.5
                value = {Polarity.PRESENT: certain, Polarity.NEGATED: -1.0, Polarity.UNCERTAIN: 0.5}
                table[row, place[problem.concept]] = value[problem.polarity]
    return table[:, np.abs(table).sum(axis=0) > 0]


def predict(features: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int) -> np.ndarray:
    """Return (N,) out-of-fold probabilities; the scaling and the components are those of the other folds."""
    out = np.zeros(len(labels))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(features, labels, patients):
        components = min(COMPONENTS, features.shape[1], len(train) - 1)
        head = make_pipeline(
            StandardScaler(),
            PCA(components, random_state=0),
            LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000),
        )
        out[test] = head.fit(features[train], labels[train]).predict_proba(features[test])[:, 1]
    return out


def by_patient(values: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Return the mean of each patient's values, patients in sorted order."""
    return np.array([values[patients == patient].mean() for patient in np.unique(patients)])


def describe(name: str, scores: np.ndarray, truth: np.ndarray, base: np.ndarray | None) -> str:
    """Return a row: AUC with its interval, and the difference to another prediction of the same patients."""
    rng = np.random.default_rng(20261125)
    aucs, gains = [], []
    while len(aucs) < RESAMPLES:
        draw = rng.integers(0, len(truth), len(truth))
        if len(set(truth[draw])) == 2:
            aucs.append(roc_auc_score(truth[draw], scores[draw]))
            if base is not None:
                gains.append(aucs[-1] - roc_auc_score(truth[draw], base[draw]))
    low, high = np.percentile(aucs, [2.5, 97.5])
    row = f"| {name} | {roc_auc_score(truth, scores):.2f} ({low:.2f} to {high:.2f}) |"
    if base is None:
        return f"{row} |"
    low, high = np.percentile(gains, [2.5, 97.5])
    gain = roc_auc_score(truth, scores) - roc_auc_score(truth, base)
    return f"{row} {gain:+.2f} ({low:+.2f} to {high:+.2f}) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--encoder", type=Path, help="hub folder of a text encoder; absent takes MiniLM")
    arguments = parser.parse_args()
    with (DATA / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    patients = np.array([row["patient_id"] for row in rows])
    labels = np.array([int("COVID" in row["finding"]) for row in rows])
    notes = [row["clinical_notes"] for row in rows]
    masked = [GIVEAWAYS.sub(" ", note) for note in notes]
    truth = by_patient(labels.astype(float), patients) >= 0.5
    encoder = open_note_encoder(arguments.encoder)
    image = image_features([DATA / row["image"] for row in rows])
    texts = {
        "note as written": encoder.encode(notes),
        "note, giveaways masked": encoder.encode(masked),
        "order problems (closed vocabulary)": order_features(masked),
    }
    touched = sum(a != b for a, b in zip(notes, masked, strict=True))
    print(f"{len(rows)} pairs of {len(truth)} patients, {truth.sum()} with COVID-19; {encoder.identity}")
    print(f"{touched} notes name the answer, its test or the outbreak\n")
    print("| input | AUC (95 % CI) | gain over the image (95 % CI) |\n|---|---|---|")

    def score(features: np.ndarray) -> np.ndarray:
        runs = [predict(features, labels, patients, seed) for seed in range(REPEATS)]
        return by_patient(np.mean(runs, axis=0), patients)

    alone = score(image)
    print(describe("image", alone, truth, None))
    for name, features in texts.items():
        text = score(features)
        print(describe(name, text, truth, alone))
        print(describe(f"image + {name}", (alone + text) / 2, truth, alone))


if __name__ == "__main__":
    main()
