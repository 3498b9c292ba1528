from __future__ import annotations

import pytest

from reporting.clinical import NoteReader


@pytest.fixture(scope="session")
def reader():
    pytest.importorskip("medspacy", reason="needs the extra language and no-deps.txt")
    return NoteReader()
