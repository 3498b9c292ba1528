"""Pure. The errors of the reporting package.

All are permanent: encoding is a pure function of its inputs, so the same inputs
fail again. None carries patient data; a violation names its object in an
attribute, never in the message.
"""

from __future__ import annotations

from dicom_node.errors import PermanentError


class ReportingError(PermanentError):
    """A result could not be turned into an object or a text."""


class UnknownConceptError(ReportingError):
    """A model names a finding, site, quantity or unit that ``codes.py`` does not hold."""


class UnencodableResultError(ReportingError):
    """A result does not fit the images that it is said to lie on."""
