"""Pure. Code sequence items and SR content items, made from the concepts of ``codes.py``."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from reporting.codes import Concept


def code_item(concept: Concept) -> Dataset:
    """Return a code sequence item (PS3.3 table 8.8-1)."""
    item = Dataset()
    item.CodeValue = concept.value
    item.CodingSchemeDesignator = concept.scheme
    item.CodeMeaning = concept.meaning
    return item


def coded(concept: Concept) -> CodedConcept:
    """Return the concept as highdicom wants it."""
    return CodedConcept(value=concept.value, scheme_designator=concept.scheme, meaning=concept.meaning)


def text_item(name: Concept, text: str, relationship: str = "CONTAINS") -> Dataset:
    """Return a TEXT content item (PS3.3 C.17.3)."""
    item = _content_item("TEXT", name, relationship)
    item.TextValue = text
    return item


def code_content_item(name: Concept, value: Concept, relationship: str) -> Dataset:
    """Return a CODE content item."""
    item = _content_item("CODE", name, relationship)
    item.ConceptCodeSequence = [code_item(value)]
    return item


def uid_item(name: Concept, uid: str, relationship: str) -> Dataset:
    """Return a UIDREF content item."""
    item = _content_item("UIDREF", name, relationship)
    item.UID = uid
    return item


def container_item(name: Concept, content: Sequence[Dataset], relationship: str = "CONTAINS") -> Dataset:
    """Return a CONTAINER content item with separate content."""
    item = _content_item("CONTAINER", name, relationship)
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = list(content)
    return item


def template_item(identifier: str) -> Dataset:
    """Return the item of a Content Template Sequence (PS3.3 C.18.8.1.2)."""
    item = Dataset()
    item.MappingResource = "DCMR"
    item.TemplateIdentifier = identifier
    return item


def _content_item(value_type: str, name: Concept, relationship: str) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [code_item(name)]
    return item
