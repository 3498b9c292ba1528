"""Pure. The errors of Preread, as one tree.

Every package derives its own errors from these, so that the engine can decide
with one ``isinstance`` what a failure means::

    PrereadError
    |-- TransientError     retry: the same call may succeed later
    `-- PermanentError     quarantine: the same call will fail again

Messages say what to do and never carry patient data: identifiers go into
attributes that the logging allow-list knows (``study_key``, ``sop_class``).
"""

from __future__ import annotations


class PrereadError(Exception):
    """Something went wrong inside Preread.

    Parameters
    ----------
    message : str
        What happened and what to do about it; free of patient data.
    study_key : str or None
        Keyed hash of the study concerned.
    sop_class : str or None
        SOP Class UID concerned.
    """

    def __init__(self, message: str, *, study_key: str | None = None, sop_class: str | None = None) -> None:
        super().__init__(message)
        self.study_key = study_key
        self.sop_class = sop_class


class TransientError(PrereadError):
    """The same call may succeed later: retry with back-off."""


class PermanentError(PrereadError):
    """The same call will fail again: quarantine with this reason."""
