"""Adapter: the settings of the systems around this node, and the destinations built from them.

Destinations are one tagged union, nested by ``settings``; ``build_destination``
is the only place that knows which adapter belongs to which tag. Sources are
asked in ``pacs``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dicom_node.clock import Clock
from integration.connections import ConnectionModel, DimsePeer, HttpEndpoint
from integration.delivery import (
    ALL_KINDS,
    DEFAULT_PATIENCE_S,
    DICOM_KINDS,
    DeliverableKind,
    Destination,
    DestinationProfile,
    SegmentationProfile,
)

#: Indexing archives show a new object within seconds; ten minutes is a fault.
DEFAULT_CONFIRM_TIMEOUT_S = 600.0


class _BaseSettings(ConnectionModel):
    """What every destination has."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$",
        description="name in rules, the ledger and the console; do not reuse a name for another system",
    )
    patience_s: float = Field(
        default=DEFAULT_PATIENCE_S,
        gt=0,
        description="how long to keep trying before a result is given up, seconds",
    )


class FolderSettings(_BaseSettings):
    """A folder."""

    type: Literal["folder"] = "folder"
    path: Path = Field(description="root folder; created when missing")
    kinds: frozenset[DeliverableKind] = Field(default=ALL_KINDS, description="kinds of results to deliver")
    segmentation: SegmentationProfile | None = Field(
        default=None, description="encoding of segmentations; none: every encoding there is"
    )


class StowSettings(_BaseSettings, HttpEndpoint):
    """A PACS over STOW-RS."""

    type: Literal["stow"] = "stow"
    kinds: frozenset[DeliverableKind] = Field(default=DICOM_KINDS, description="kinds of results to deliver")
    segmentation: SegmentationProfile = Field(
        default="BINARY", description="encoding of segmentations that the PACS and its viewers take"
    )
    is_confirmed_by_query: bool = Field(
        default=True, description="ask by QIDO-RS before an object counts as confirmed"
    )
    confirm_timeout_s: float = Field(
        default=DEFAULT_CONFIRM_TIMEOUT_S,
        gt=0,
        description="an accepted object that QIDO-RS does not show for so long is sent again, seconds",
    )


class CStoreSettings(_BaseSettings, DimsePeer):
    """A PACS over DIMSE."""

    type: Literal["cstore"] = "cstore"
    kinds: frozenset[DeliverableKind] = Field(default=DICOM_KINDS, description="kinds of results to deliver")
    segmentation: SegmentationProfile = Field(
        default="BINARY", description="encoding of segmentations that the PACS and its viewers take"
    )
    commitment: bool = Field(
        default=False,
        description="ask for storage commitment; the PACS must know this node's AE title, host and port",
    )
    commitment_timeout_s: float = Field(
        default=DEFAULT_CONFIRM_TIMEOUT_S,
        gt=0,
        description="how long a commitment report may take before it is asked for again, seconds",
    )
    commitment_linger_s: float = Field(
        default=1.0, ge=0, description="wait for a report on the association that asked, seconds"
    )


class FhirSettings(_BaseSettings, HttpEndpoint):
    """An EHR or FHIR store."""

    type: Literal["fhir"] = "fhir"
    kinds: frozenset[Literal["bundle"]] = Field(
        default=frozenset({"bundle"}), description="kinds of results to deliver: FHIR Bundles"
    )
    confirm_timeout_s: float = Field(
        default=DEFAULT_CONFIRM_TIMEOUT_S,
        gt=0,
        description="an accepted report that searches do not show for so long is sent again, seconds",
    )


DestinationSettings = Annotated[
    FolderSettings | StowSettings | CStoreSettings | FhirSettings, Field(discriminator="type")
]


def build_destination(
    settings: FolderSettings | StowSettings | CStoreSettings | FhirSettings,
    *,
    clock: Clock,
    new_uid: Callable[[], str],
) -> Destination:
    """Return the destination that settings describe; nothing is contacted yet.

    Parameters
    ----------
    settings : DestinationSettings
        One member of the union.
    clock : callable
        Returns the present time, aware UTC.
    new_uid : callable
        Returns a new UID, for storage commitment transactions.

    Returns
    -------
    Destination
        Ready for `integration.delivery.deliver_run`.
    """
    match settings:
        case FolderSettings():
            from integration.folder import FolderDestination

            return FolderDestination(profile=_profile(settings, settings.segmentation), path=settings.path)
        case StowSettings():
            from integration.stow import StowDestination

            return StowDestination(
                profile=_profile(settings, settings.segmentation),
                endpoint=settings,
                is_confirmed_by_query=settings.is_confirmed_by_query,
                confirm_timeout_s=settings.confirm_timeout_s,
                clock=clock,
            )
        case CStoreSettings():
            from integration.cstore import CStoreDestination

            return CStoreDestination(
                profile=_profile(settings, settings.segmentation),
                peer=settings,
                has_commitment=settings.commitment,
                commitment_timeout_s=settings.commitment_timeout_s,
                commitment_linger_s=settings.commitment_linger_s,
                clock=clock,
                new_uid=new_uid,
            )
        case FhirSettings():
            from integration.ehr import FhirDestination

            return FhirDestination(
                profile=_profile(settings, None),
                endpoint=settings,
                confirm_timeout_s=settings.confirm_timeout_s,
                clock=clock,
            )


def _profile(
    settings: FolderSettings | StowSettings | CStoreSettings | FhirSettings,
    segmentation: SegmentationProfile | None,
) -> DestinationProfile:
    return DestinationProfile(
        name=settings.name,
        kinds=frozenset(map(str, settings.kinds)),
        segmentation=segmentation,
        patience_s=settings.patience_s,
    )
