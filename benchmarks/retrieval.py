"""Vector, hybrid and graph-boosted search beside keyword search: questions of MedQuAD and their answers.

The library holds the answers of the test split and of a fixed draw of the training split (no disease is in
both), without the disease's name in their titles. A search is right where it finds an answer to the same kind
of question about the same disease, or the same text. Questions are asked three ways:

    asked      as MedQuAD has them: they share the disease's name and often the kind's word with the answer
    reworded   the kind of question in other words, the disease's name kept
    unnamed    reworded, and the name replaced by what another text defines the disease as

Three more ways are about diseases that are named after a finding of this node ("idiopathic pulmonary
fibrosis"), of both splits: this is what the graph knows. All are reworded.

    finding named        by the disease's name, which holds the lexicon's word for the finding
    finding by synonym   the word replaced by a synonym of the ontology (HPO) that is not in the lexicon
    finding described    the word replaced by a description in plain words, written here

    python benchmarks/retrieval.py --data ../shared/data/text/medquad --work bench-retrieval
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reporting.language.documents import MEDQUAD_LICENCE, read_medquad
from reporting.language.embedding import open_encoder, unpack_minilm
from reporting.language.finding_terms import FINDING_TERMS
from reporting.language.keywords import split_words
from reporting.language.knowledge_graph import KnowledgeGraph, NodeKind, build_graph
from reporting.language.library import Library, open_library
from reporting.language.mentions import Vocabulary
from reporting.language.passages import Document
from reporting.language.phenotypes import load_phenotypes
from reporting.language.ranking import fuse_rankings
from reporting.language.retrieval_metrics import METRICS, Answered, first_of_each, score_search

SEED = 20261125
DEPTH = 50
REWORDED = {
    "information": "Tell me in plain words about {}.",
    "treatment": "How can {} be cured or managed?",
    "symptoms": "How does someone notice having {}?",
    "inheritance": "Can parents pass {} on to their children?",
    "genetic changes": "Which mutations lie behind {}?",
    "frequency": "How common is {}?",
    "outlook": "What can a person with {} expect in the years ahead?",
    "causes": "Why does {} happen?",
    "research": "What is being studied about {}?",
    "susceptibility": "Which people get {} most often?",
    "exams and tests": "Which examination finds {}?",
    "prevention": "How can one avoid {}?",
    "considerations": "What should a person with {} eat or do?",
    "complications": "What can go wrong with {}?",
    "stages": "How far along can {} be?",
}
#: What each finding is in plain words, without its name; written before anything was measured with them.
DESCRIBED = {
    "neoplasm": "growth inside the skull",
    "tumour": "growth inside the skull",
    "intracranial_haemorrhage": "leak of blood into the head",
    "aortic_enlargement": "widening of the body's main artery",
    "atelectasis": "airless part of the chest's breathing organ",
    "calcification": "deposits of lime",
    "cardiomegaly": "heart that has grown too big",
    "consolidation": "air sacs filled with something else",
    "edema": "water in the lungs",
    "effusion": "water between lung and ribs",
    "emphysema": "destroyed, overblown air sacs",
    "fibrosis": "scars all over the lungs",
    "pulmonary_fibrosis": "scars all over the lungs",
    "hernia": "gut that has slipped up through a gap in the muscle under the lungs",
    "ild": "sick tissue between the air sacs",
    "infiltration": "patches where cells have gathered",
    "lung_opacity": "white patch on the chest picture",
    "mass": "big lump in the lung",
    "nodule": "small round lump in the lung",
    "nodule_mass": "lump in the lung",
    "pneumonia": "infected, inflamed lung",
    "pneumothorax": "air that has leaked out between lung and ribs",
    "pleural_thickening": "thick lining of the chest",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, the documents that answer it, and its disease."""

    text: str
    relevant: frozenset[str]
    focus: str
    kind: str


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return MedQuAD's lines, each with the id that its text has in a library."""
    lines = file.read_text(encoding="utf-8").splitlines()
    documents = read_medquad(file)
    return [
        {**json.loads(line), "document_id": document.document_id}
        for line, document in zip(lines, documents, strict=True)
    ]


def as_document(row: Mapping[str, str]) -> Document:
    return Document(
        document_id=row["document_id"],
        title=f"{row['source']} page",
        source=row["url"],
        licence=MEDQUAD_LICENCE,
        text=row["answer"],
    )


def ask(rows: Sequence[Mapping[str, str]], corpus: Sequence[Mapping[str, str]]) -> list[Question]:
    """Return each question of the rows once, with all documents of the corpus that answer it."""
    same_text = defaultdict(set)
    for row in corpus:
        same_text[row["answer"]].add(row["document_id"])
    relevant: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        relevant[row["focus"], row["qtype"]] |= same_text[row["answer"]]
    first = {}
    for row in rows:
        first.setdefault((row["focus"], row["qtype"]), row["question"])
    return [
        Question(text=first[key], relevant=frozenset(relevant[key]), focus=key[0], kind=key[1])
        for key in first
    ]


def definitions(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return for each disease what its own text defines it as, where the definition does not name it."""
    found: dict[str, str] = {}
    for row in rows:
        focus = row["focus"]
        bare = re.sub(r"\s*\(.*?\)", "", focus)
        text = re.sub(r"^Key Points\s*-\s*", "", row["answer"])
        match = re.match(
            rf"(?:An?\s+|The\s+)?{re.escape(bare)}\b[^.]{{0,60}}?\s+(?:is|are)\s+((?:an?|the)\s[^.]{{30,300}})\.",
            text,
            re.IGNORECASE,
        )
        if row["qtype"] == "information" and match and bare.lower() not in match[1].lower():
            found.setdefault(focus, match[1].split(" - ")[0].strip())
    return found


def reword(question: Question) -> Question:
    return replace(question, text=REWORDED[question.kind].format(question.focus))


def unname(questions: Sequence[Question], meanings: Mapping[str, str]) -> list[Question]:
    """Return the reworded questions with a definition for a name, without those that ask for a definition."""
    return [
        replace(question, text=REWORDED[question.kind].format(meanings[question.focus]))
        for question in questions
        if question.focus in meanings and question.kind != "information"
    ]


def rename_findings(text: str, names: Mapping[str, str]) -> str:
    """Return a text with other names for the findings that it names; empty if one has no other name."""
    phrases = {
        tuple(split_words(phrase)): key for key, terms in FINDING_TERMS.items() for phrase in terms.phrases
    }
    words, renamed, start = text.split(), [], 0
    while start < len(words):
        for end in range(len(words), start, -1):
            key = phrases.get(tuple(split_words(" ".join(words[start:end]))))
            if key is not None and split_words(words[start]) and split_words(words[end - 1]):
                if key not in names:
                    return ""
                renamed.append(names[key])
                start = end
                break
        else:
            renamed.append(words[start])
            start += 1
    return " ".join(renamed)


def find_synonyms(lexicon: Vocabulary, folder: Path) -> dict[str, str]:
    """Return for each finding with one term of the HPO a synonym of it that is not in the lexicon."""
    synonyms = {one.term_id: one.synonyms for one in load_phenotypes(folder).phenotypes}
    found = {}
    for key, terms in FINDING_TERMS.items():
        others = [one for link in terms.phenotypes for one in synonyms[link.term_id] if not lexicon.find(one)]
        if len(terms.phenotypes) == 1 and others:
            found[key] = others[0].lower()
    return found


def ask_about_findings(
    asked: Sequence[Question], lexicon: Vocabulary, folder: Path
) -> dict[str, list[Question]]:
    """Return questions about diseases that are named after a finding: by name, synonym and description."""
    names = {"by synonym": find_synonyms(lexicon, folder), "described": DESCRIBED}
    ways = {"finding named": [reword(question) for question in asked]}
    for way, table in names.items():
        renamed = [(question, rename_findings(question.focus, table)) for question in asked]
        ways[f"finding {way}"] = [
            replace(question, text=REWORDED[question.kind].format(name))
            for question, name in renamed
            if name and not lexicon.find(name)
        ]
    return ways


def searches(library: Library, graph: KnowledgeGraph) -> dict[str, Callable[[str], Sequence[str]]]:
    """Return the ways to search; each gives ids of passages, best first."""

    def by(kind: str) -> Callable[[str], Sequence[str]]:
        return lambda query: [hit.passage_id for hit in library.search(query, DEPTH, kind)]  # type: ignore[arg-type]

    def near(query: str) -> Sequence[str]:
        return [key for key, _ in graph.rank_for_text(query, NodeKind.PASSAGE, DEPTH)]

    def boosted(query: str) -> Sequence[str]:
        rankings = [by("vector")(query), by("keyword")(query), near(query)]
        return [key for key, _ in fuse_rankings(rankings)]

    return {
        "keyword (BM25)": by("keyword"),
        "vector": by("vector"),
        "hybrid": by("hybrid"),
        "graph alone": near,
        "hybrid + graph": boosted,
    }


def measure(search: Callable[[str], Sequence[str]], questions: Sequence[Question]) -> dict[str, object]:
    began = time.perf_counter()
    answers = [
        Answered(
            ranking=first_of_each([key.rpartition("#")[0] for key in search(question.text)]),
            relevant=question.relevant,
            group=question.focus,
        )
        for question in questions
    ]
    seconds = (time.perf_counter() - began) / len(questions)
    figures = score_search(answers)
    return {
        "seconds_per_query": round(seconds, 4),
        "found_anything": sum(bool(answer.ranking) for answer in answers),
        **{name: [round(v, 3) for v in (f.mean, f.low, f.high)] for name, f in figures.items()},
    }


def show(name: str, figures: Mapping[str, object]) -> None:
    cells = []
    for metric in METRICS:
        mean, low, high = figures[metric]  # type: ignore[misc]
        cells.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
    print(f"| {name} | {' | '.join(cells)} | {1000 * figures['seconds_per_query']:.0f} |", flush=True)  # type: ignore[operator]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of MedQuAD: train.jsonl, test.jsonl")
    parser.add_argument("--work", type=Path, default=Path("bench-retrieval"), help="folder of the library")
    parser.add_argument("--distractors", type=int, default=1500, help="answers of the training split")
    parser.add_argument("--questions", type=int, default=0, help="most questions of each way; 0 takes all")
    parser.add_argument("--float32", action="store_true", help="the float32 model instead of int8 ONNX")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()

    test, train = (read_rows(arguments.data / f"{split}.jsonl") for split in ("test", "train"))
    others = random.Random(SEED).sample(train, arguments.distractors)
    corpus = [*test, *others]
    lexicon = Vocabulary({key: terms.phrases for key, terms in FINDING_TERMS.items()})
    about_findings = [row for row in (*test, *train) if lexicon.find(row["focus"])]
    drawn = {row["document_id"] for row in corpus}
    extra = [row for row in about_findings if row["document_id"] not in drawn]
    source = unpack_minilm(arguments.work / "all-MiniLM-L6-v2") if arguments.float32 else None
    encoder = open_encoder(source)
    name = f"library-{arguments.distractors}{'-float32' if arguments.float32 else ''}"
    library = open_library(arguments.work / name, encoder)
    began = time.perf_counter()
    library.remove([row["document_id"] for row in extra])  # those of a run before
    added = library.add([as_document(row) for row in corpus])
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    graph = build_graph(library, arguments.work)
    print(f"encoder {encoder.identity}; {len(corpus)} documents, {len(library.passages())} passages;")
    print(f"{added.passages} embedded in {seconds:.0f} s; graph in {time.perf_counter() - began:.0f} s:")
    print(", ".join(f"{count} {kind}" for kind, count in graph.counts().items()))

    asked = ask(test, corpus)
    ways = {
        "asked": asked,
        "reworded": [reword(question) for question in asked],
        "unnamed": unname(asked, definitions(test)),
    }
    if arguments.questions:
        ways = {
            way: random.Random(SEED).sample(questions, min(arguments.questions, len(questions)))
            for way, questions in ways.items()
        }
    results: dict[str, object] = {"encoder": encoder.identity, "documents": len(corpus)}
    compare(ways, library, graph, results)
    library.add([as_document(row) for row in extra])
    graph = build_graph(library, arguments.work)
    ways = ask_about_findings(ask(about_findings, [*corpus, *extra]), lexicon, arguments.work)
    print(f"\nwith all texts on diseases named after a finding: {len(library.documents())} documents")
    compare(ways, library, graph, results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def compare(
    ways: Mapping[str, Sequence[Question]],
    library: Library,
    graph: KnowledgeGraph,
    results: dict[str, object],
) -> None:
    """Measure all searches on each way of asking; print a table and keep the figures."""
    for way, questions in ways.items():
        if not questions:
            continue
        diseases = len({question.focus for question in questions})
        print(f"\n{way}: n = {len(questions)} questions, {diseases} diseases, such as {questions[-1].text!r}")
        print(f"| search | {' | '.join(METRICS)} | ms |")
        print(f"|---|{'---|' * (len(METRICS) + 1)}")
        library.search("warm up", 1)
        results[way] = {"questions": len(questions), "diseases": diseases}
        for label, search in searches(library, graph).items():
            figures = measure(search, questions)
            results[way][label] = figures  # type: ignore[index]
            show(label, figures)
            if label == "graph alone":
                print(f"  the graph knows something that {figures['found_anything']} of the questions name")


if __name__ == "__main__":
    main()
