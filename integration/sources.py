"""Pure. Settings of the systems that send studies to this node, and how to ask them how large a study is.

Values only, so that ``settings`` can nest them; the asking is in ``pacs``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from integration.connections import AeTitle, ConnectionModel, DimsePeer, HttpEndpoint

#: A PACS that forwards a study pauses for less between its series; a scanner in the room needs more, seconds.
DEFAULT_QUIET_PERIOD_S = 5.0


class QidoQuery(ConnectionModel):
    """Ask by QIDO-RS."""

    type: Literal["qido"] = "qido"
    endpoint: HttpEndpoint = Field(description="DICOMweb root of the source")


class FindQuery(ConnectionModel):
    """Ask by C-FIND, Study Root."""

    type: Literal["cfind"] = "cfind"
    peer: DimsePeer = Field(description="query application entity of the source")


class CommitmentTarget(ConnectionModel):
    """Where the reports for a source's storage commitment requests go (PS3.4 J.3.3)."""

    host: str = Field(min_length=1, description="host name or address of the source")
    port: int = Field(ge=1, le=65535, description="TCP port of the source")


class SourceSettings(ConnectionModel):
    """One sender of studies."""

    ae_title: AeTitle = Field(description="calling AE title under which the source sends")
    quiet_period_s: float = Field(
        default=DEFAULT_QUIET_PERIOD_S,
        gt=0,
        description="silence after which a study of this source counts as complete, seconds",
    )
    query: Annotated[QidoQuery | FindQuery, Field(discriminator="type")] | None = Field(
        default=None, description="how to ask the source for a study's number of instances; none: do not ask"
    )
    commitment: CommitmentTarget | None = Field(
        default=None,
        description="host and port to which storage commitment reports for this source go; none: "
        "requests are refused",
    )
