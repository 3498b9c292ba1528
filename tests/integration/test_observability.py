from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.errors import PermanentError
from integration.observability import (
    ALLOWED_FIELDS,
    Metrics,
    configure_logging,
    describe_error,
    drop_unlisted_fields,
)


@pytest.fixture
def log_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Yield what the process logs, as JSON lines."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(json=True)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@given(event=st.dictionaries(st.text(), st.text()))
def test_only_listed_fields_pass(event: dict[str, str]) -> None:
    assert set(drop_unlisted_fields(None, "info", dict(event))) <= ALLOWED_FIELDS


def test_a_patient_name_never_reaches_a_line(log_lines: io.StringIO) -> None:
    structlog.get_logger().info("study_received", patient_name="DOE^JANE", study_key="abc")
    line = json.loads(log_lines.getvalue())
    assert line["study_key"] == "abc"
    assert "DOE" not in json.dumps(line)


def test_libraries_appear_by_origin_only(log_lines: io.StringIO) -> None:
    logging.getLogger("pydicom").warning("invalid value DOE^JANE")
    logging.getLogger("highdicom").info("made 1.2.3")
    line = json.loads(log_lines.getvalue())
    assert line["event"] == "library_message"
    assert line["logger"] == "pydicom"
    assert "DOE" not in json.dumps(line)


def test_python_warnings_appear_by_origin_only(log_lines: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("invalid value DOE^JANE", UserWarning, stacklevel=1)
    output = log_lines.getvalue()
    assert "py.warnings" in output
    assert "DOE" not in output


def test_foreign_errors_are_described_by_class_and_place_of_ours() -> None:
    assert describe_error(PermanentError("say what to do")) == "PermanentError: say what to do"
    with pytest.raises(ValueError) as caught:
        Metrics().steps.labels("DOE", "JANE")
    assert describe_error(caught.value).startswith("ValueError")
    assert "DOE" not in describe_error(caught.value)
