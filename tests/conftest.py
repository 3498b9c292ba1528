"""What holds for every test: drafts go out, unless a test asks for a language model."""

from __future__ import annotations

import os

#: Wording takes seconds a report; the tests of it name their model. Child processes inherit this.
os.environ.setdefault("PREREAD_LANGUAGE__BACKEND", "none")
