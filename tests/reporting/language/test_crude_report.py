from __future__ import annotations

import pytest

from reporting.language.crude_report import CrudeReportError, crude_sentences, write_crude


def test_crude_sentences_come_back_in_order_and_once(tmp_path) -> None:
    write_crude(tmp_path, "b@1.0.0", ("There is a mass.", "There is no effusion."))
    write_crude(tmp_path, "a@1.0.0", ("There is no effusion.",))
    assert crude_sentences(tmp_path) == ("There is no effusion.", "There is a mass.")
    write_crude(tmp_path, "b@1.0.0", ())
    assert crude_sentences(tmp_path) == ("There is no effusion.",)


def test_a_run_without_a_report_model_has_none(tmp_path) -> None:
    assert crude_sentences(tmp_path) == ()


@pytest.mark.parametrize("content", ["", "[]", '{"sentences": "text"}', '{"sentences": [1]}'])
def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path, content) -> None:
    (tmp_path / "crude-a@1.0.0.json").write_text(content)
    with pytest.raises(CrudeReportError, match="requeue"):
        crude_sentences(tmp_path)
