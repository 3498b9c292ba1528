"""Pure. What the gate compares results with: the study's headers, the masks, the other results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from inference.findings import Heatmap, Mask
from reporting.context import ResultObject, SourceSeries


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a result may refer to.

    Attributes
    ----------
    masks : mapping of str to Mask
        The mask of each model that made one, by model name.
    heatmaps : mapping of str to sequence of Heatmap
        The heat maps of each model that made some, by model name.
    """

    sources: SourceSeries
    masks: Mapping[str, Mask]
    objects: Sequence[ResultObject]
    heatmaps: Mapping[str, Sequence[Heatmap]] = field(default_factory=dict)

    @property
    def headers(self) -> Mapping[str, Dataset]:
        """Source headers by SOP Instance UID."""
        return {str(h.SOPInstanceUID): h for series in self.sources.values() for h in series}

    @property
    def instances(self) -> Mapping[str, Dataset]:
        """Sources and results by SOP Instance UID."""
        return {**self.headers, **{o.object_uid: o.dataset for o in self.objects}}


def walk(dataset: Dataset) -> Iterator[Dataset]:
    """Yield a data set and all items nested in it, depth first."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from walk(item)
