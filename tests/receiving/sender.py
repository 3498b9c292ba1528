"""Adapter: a storage SCU that sends bytes as they are, and looks at what came back."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import AssociationSocket

from dicom_node.part10 import PartTen
from dicom_node.transport import ReceiverSocket

# pynetdicom's own client leaves its socket to the collector when the peer is gone; tests count leaks.
AssociationSocket._shutdown_socket = ReceiverSocket._shutdown_socket


def associate(
    port: int,
    contexts: Sequence[tuple[str, str]],
    *,
    called: str = "PREREAD",
    calling: str = "SCANNER",
    tls: ssl.SSLContext | None = None,
) -> Association:
    """Open an association with one context per pair of abstract and transfer syntax."""
    ae = AE(ae_title=calling)
    ae.connection_timeout = 10
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for abstract, transfer in dict.fromkeys(contexts):
        ae.add_requested_context(abstract, transfer)
    tls_args = None if tls is None else (tls, "127.0.0.1")
    return ae.associate("127.0.0.1", port, ae_title=called, tls_args=tls_args)


@contextmanager
def association(port: int, contexts: Sequence[tuple[str, str]], **options: object) -> Iterator[Association]:
    """Open an association that must be established; release it afterwards."""
    assoc = associate(port, contexts, **options)  # type: ignore[arg-type]
    assert assoc.is_established
    try:
        yield assoc
    finally:
        assoc.release()


def contexts_of(files: Sequence[PartTen]) -> list[tuple[str, str]]:
    """Return the contexts that these files need."""
    return [(file.meta().sop_class_uid, file.meta().transfer_syntax_uid) for file in files]


def store(assoc: Association, file: PartTen, message_id: int = 1) -> int:
    """Send the Data Set's bytes untouched and return the status."""
    meta = file.meta()
    request = C_STORE()
    request.MessageID = message_id
    request.AffectedSOPClassUID = meta.sop_class_uid
    request.AffectedSOPInstanceUID = meta.sop_instance_uid
    request.Priority = 2
    request.DataSet = BytesIO(bytes(file.data_set))
    wanted = (meta.sop_class_uid, meta.transfer_syntax_uid)
    context_id = next(
        cx.context_id
        for cx in assoc.accepted_contexts
        if (cx.abstract_syntax, cx.transfer_syntax[0]) == wanted
    )
    assoc._reactor_checkpoint.clear()
    try:
        assoc.dimse.send_msg(request, context_id)
        _, response = assoc.dimse.get_msg(block=True)
    finally:
        assoc._reactor_checkpoint.set()
    assert response is not None, "the peer went away"
    return int(response.Status)


def send_all(port: int, files: Sequence[PartTen], **options: object) -> list[int]:
    """Send files over one association and return their statuses."""
    with association(port, contexts_of(files), **options) as assoc:
        return [store(assoc, file, number % 60000 + 1) for number, file in enumerate(files)]


def reference(image: Dataset) -> Dataset:
    """Return a Referenced SOP item."""
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item
