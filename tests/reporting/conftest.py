"""Fixtures of the reporting tests; the builders are in ``tests/reporting_cases.py``."""

from __future__ import annotations

import pytest
from reporting_cases import Case, make_case, make_enhanced_case


@pytest.fixture
def case() -> Case:
    return make_case()


@pytest.fixture
def enhanced_case() -> Case:
    return make_enhanced_case()
