"""Pure. The words of questions: how people name findings, and medical terms that no algorithm here reports.

Keys are those of ``reporting/codes.py``; a test holds that every finding there has words
here. Words are lower case, singular; plurals are recognised.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

#: Finding key to how people ask for it, beside the noun and the label of ``codes.py``.
CONCEPT_WORDS: Final = MappingProxyType(
    {
        "neoplasm": ("flair abnormality", "tumour", "tumor", "glioma", "lesion", "neoplasm", "mass"),
        "intracranial_haemorrhage": (
            "intracranial haemorrhage", "intracranial hemorrhage", "haemorrhage", "hemorrhage", "bleed",
            "bleeding", "haematoma", "hematoma",
        ),
        "tumour": ("tumour", "tumor", "brain lesion", "lesion", "neoplasm", "mass"),
        "aortic_enlargement": ("aortic enlargement", "enlarged aorta", "wide aorta", "dilated aorta"),
        "atelectasis": ("atelectasis", "atelectases", "collapse"),
        "calcification": ("calcification", "calcified"),
        "cardiomegaly": ("cardiomegaly", "enlarged heart", "big heart", "heart enlargement", "heart enlarged"),
        "consolidation": ("consolidation", "consolidated"),
        "edema": ("pulmonary oedema", "pulmonary edema", "oedema", "edema", "congestion"),
        "effusion": ("pleural effusion", "effusion", "pleural fluid"),
        "emphysema": ("emphysema", "copd"),
        "fibrosis": ("fibrosis", "fibrotic", "scarring"),
        "hernia": ("hernia", "hiatal hernia"),
        "ild": ("interstitial pattern", "interstitial lung disease", "ild", "interstitial"),
        "infiltration": ("infiltrate", "infiltration"),
        "lung_opacity": ("lung opacity", "opacity", "shadow", "lung opacities", "opacities"),
        "mass": ("mass", "masses", "tumour", "tumor"),
        "nodule": ("nodule", "lung nodule", "pulmonary nodule"),
        "nodule_mass": ("nodule or mass", "nodule/mass", "nodule", "mass", "masses"),
        "other_lesion": ("other lesion", "lesion"),
        "pneumonia": ("pneumonia", "pneumonia-like opacity", "lung infection"),
        "pneumothorax": ("pneumothorax", "collapsed lung", "pneumothoraces"),
        "pleural_thickening": ("pleural thickening", "thick pleura"),
        "pulmonary_fibrosis": ("pulmonary fibrosis", "fibrosis", "fibrotic"),
        "brain": ("brain volume", "whole brain"),
        "brain_volume": ("brain volume", "whole brain"),
        "gray_matter": ("gray matter", "grey matter"),
        "white_matter": ("white matter",),
        "cerebrospinal_fluid": ("cerebrospinal fluid", "csf"),
    }
)  # fmt: skip

#: What radiologists ask for and no finding of ``codes.py`` covers: answered by what is looked for instead.
OTHER_TERMS: Final = (
    "abscess", "adenopathy", "aneurysm", "ascites", "bronchiectasis", "cavity", "covid", "cyst", "demyelination",
    "dissection", "embolism", "embolus", "enhancement", "foreign body", "fracture", "gallstone", "hydrocephalus",
    "infarct", "infarction", "ischaemia", "ischemia", "kidney stone", "lymph node", "lymphadenopathy",
    "meningioma", "metastases", "metastasis", "midline shift", "multiple sclerosis", "pacemaker", "perforation",
    "pericardial effusion", "plaque", "pneumomediastinum", "pneumoperitoneum", "rib fracture", "scoliosis",
    "silicosis", "stenosis", "stroke", "thrombosis", "thrombus", "tuberculosis", "catheter", "tube",
)  # fmt: skip


#: What a question about a study, its reading or its sources is about, beside findings.
DOMAIN_WORDS: Final = re.compile(
    r"\b(?:findings?|lesions?|abnormal\w*|patholog\w*|stud(?:y|ies)|scans?|images?|imaging|slices?|series|x-?rays?|"
    r"radiographs?|radiolog\w*|films?|mri?|ct|flair|t1|t2|chest|brain|lungs?|heart|head|pleura\w*|thora\w+|aort\w+|"
    r"mediastin\w+|hemispheres?|lobes?|zones?|models?|algorithms?|networks?|ai|heat ?maps?|segment\w*|masks?|"
    r"outlin\w+|marks?|marked|boxe?s?|measur\w+|volumes?|diameters?|report\w*|results?|impression|triage|priors?|"
    r"guidelines?|guidance|exam\w*|readings?|grad-?cam|tumou?rs?|malignan\w+|benign|anatom\w+|tissue|cancer|"
    r"nodul\w+|opacit\w+|fluid|infect\w*|bleed\w*|fleischner|recist|rano|detector|classifier)\b",
    re.IGNORECASE,
)
_ASKING_WORDS: Final = frozenset(
    ["a", "about", "again", "algorithm", "all", "also", "am", "an", "and", "any", "anything", "are", "area", "areas", "as", "ask", "at", "be", "been", "before", "better", "big", "bigger", "biggest", "both", "but", "by", "can", "caveats", "certain", "change", "changed", "changes", "clear", "compare", "compared", "comparison", "confidence", "confident", "could", "describe", "did", "diameters", "different", "do", "does", "doubt", "doubts", "else", "emergency", "ever", "exactly", "explain", "find", "for", "found", "from", "give", "grew", "grow", "growing", "grown", "had", "has", "have", "help", "here", "high", "how", "i", "if", "impression", "in", "increased", "is", "it", "its", "just", "kind", "know", "large", "larger", "largest", "left", "let", "limitations", "list", "located", "location", "long", "look", "looked", "low", "made", "main", "many", "may", "me", "mean", "measure", "might", "more", "most", "much", "my", "new", "no", "normal", "not", "now", "of", "off", "old", "on", "one", "ones", "only", "or", "other", "our", "over", "overview", "part", "parts", "place", "please", "position", "priority", "probability", "probable", "problem", "problems", "progressed", "quality", "read", "really", "refused", "region", "reliable", "rely", "right", "risk", "s", "same", "say", "see", "seen", "shall", "show", "shown", "side", "sides", "since", "size", "sizes", "small", "smaller", "smallest", "so", "some", "something", "stable", "sure", "summarise", "summarize", "summary", "t", "tell", "than", "that", "the", "their", "them", "there", "these", "they", "thing", "things", "this", "those", "time", "to", "trust", "uncertain", "uncertainty", "up", "urgent", "us", "use", "version", "visible", "volume", "want", "was", "we", "well", "were", "what", "when", "where", "which", "who", "whole", "why", "will", "with", "worse", "would", "wrong", "yes", "you", "your"]
)


def is_about_imaging(text: str) -> bool:
    """Say whether a question speaks of what this node knows, or of nothing else that it names."""
    if DOMAIN_WORDS.search(text) or find_concepts(text) or find_other_terms(text):
        return True
    words = re.findall(r"[^\W\d_]+", text.lower())
    return bool(words) and all(word in _ASKING_WORDS for word in words)


def find_concepts(text: str) -> tuple[str, ...]:
    """Return the keys of the findings that a text may name, in the order of the vocabulary.

    A word may name several ("lesion"): which of them a study has is for its findings to say.
    """
    return tuple(
        concept
        for concept in CONCEPT_WORDS
        if any(_word(word).search(text.lower()) for word in CONCEPT_WORDS[concept])
    )


def find_other_terms(text: str) -> tuple[str, ...]:
    """Return the medical terms of a text that no finding of ``codes.py`` covers."""
    return tuple(term for term in OTHER_TERMS if _word(term).search(text.lower()))


def is_vocabulary(word: str) -> bool:
    """Say whether a single word belongs to the closed vocabulary of questions."""
    return word.lower() in _SINGLE_WORDS


def _word(word: str) -> re.Pattern[str]:
    return _PATTERNS[word]


def _compile(word: str) -> re.Pattern[str]:
    parts = (re.escape(part) for part in word.split())
    joined = r"[\s-]+".join(parts)
    return re.compile(rf"(?<![\w-]){joined}(?:s|es)?(?!\w)")


_PATTERNS: Final = {
    word: _compile(word)
    for word in dict.fromkeys((*(w for words in CONCEPT_WORDS.values() for w in words), *OTHER_TERMS))
}
_SINGLE_WORDS: Final = frozenset(
    part
    for word in _PATTERNS
    for part in re.split(r"[\s/-]+", word)
) | frozenset(
    {
        "a", "all", "an", "and", "any", "are", "as", "at", "be", "big", "brain", "by", "can", "chest", "did", "do",
        "does", "for", "from", "has", "have", "heart", "how", "image", "in", "is", "it", "its", "large", "left",
        "long", "low", "lung", "model", "my", "new", "no", "not", "of", "on", "or", "read", "report", "right",
        "say", "see", "series", "show", "side", "size", "so", "study", "sure", "that", "the", "there", "this",
        "to", "up", "was", "what", "when", "where", "which", "who", "why", "with", "you",
    }
)  # fmt: skip
