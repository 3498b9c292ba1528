"""Adapter: the DICOM application entity that receives studies, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dicom_node.commitment import CommitmentPeer, CommitmentScp
from dicom_node.intake import Intake
from dicom_node.receiver import CommitmentReportHandler, Receiver, ScpSettings, ScpSettingsError
from dicom_node.receiver_pool import ReceiverPlan, ReceiverPool

__all__ = ["CommitmentPeer", "ScpSettings", "ScpSettingsError", "StorageScp"]


class StorageScp:
    """Storage, Verification and Storage Commitment on one port.

    Parameters
    ----------
    settings : ScpSettings
        How to listen, and in how many processes.
    intake : Intake
        Makes instances durable.
    on_association_released : callable, optional
        Called with the association id after an association that sent images ended.
    on_commitment_report : callable, optional
        Called with what a PACS reports of a storage commitment that we asked for:
        Transaction UID, committed UIDs, failed UIDs with their Failure Reason.
    commitment_peers : mapping, optional
        Calling AE title to where reports go, for sources that ask us for commitment.
    """

    def __init__(
        self,
        settings: ScpSettings,
        intake: Intake,
        *,
        on_association_released: Callable[[str], None] | None = None,
        on_commitment_report: CommitmentReportHandler | None = None,
        commitment_peers: Mapping[str, CommitmentPeer] | None = None,
    ) -> None:
        peers = dict(commitment_peers or {})
        self._receiver: Receiver | ReceiverPool
        if settings.receiver_processes > 1:
            plan = ReceiverPlan(
                settings=settings,
                store_root=intake.store.root,
                watermark=intake.store.watermark,
                ledger_url=intake.ledger.url,
                commitment_peers=peers,
            )
            self._receiver = ReceiverPool(
                plan,
                on_association_released=on_association_released,
                on_commitment_report=on_commitment_report,
            )
        else:
            self._receiver = Receiver(
                settings,
                intake,
                on_association_released=on_association_released,
                on_commitment_report=on_commitment_report,
                commitment=CommitmentScp(settings.ae_title, intake.ledger, peers) if peers else None,
            )

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return self._receiver.port

    def start(self) -> None:
        """Listen, and return.

        Raises
        ------
        ScpSettingsError, TlsSettingsError
            If that cannot be done as configured.
        """
        self._receiver.start()

    def stop(self) -> None:
        """Stop listening; what was answered with success is durable."""
        self._receiver.stop()
