from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.uids import derive_uid, derive_uuid

PARTS = st.lists(st.text(), min_size=1, max_size=5)


@given(PARTS)
def test_uid_is_valid_and_the_same_every_time(parts):
    uid = derive_uid(*parts)
    assert uid == derive_uid(*parts)
    assert len(uid) <= 64
    assert uid.startswith("2.25.")
    assert not uid.removeprefix("2.25.").startswith("0")


@given(PARTS, PARTS)
def test_other_parts_give_another_uid(one, other):
    assert (derive_uid(*one) == derive_uid(*other)) == (one == other)


@given(st.text(min_size=1), st.text(min_size=1))
def test_the_border_between_parts_counts(one, other):
    assert derive_uid(one, other) != derive_uid(one + other)
    assert derive_uid(one, other, "") != derive_uid(one, other)


@given(PARTS)
def test_uuid_has_version_and_variant(parts):
    uuid = derive_uuid(*parts)
    assert uuid.version == 8
    assert uuid.variant == "specified in RFC 4122"


def test_no_parts_are_refused():
    with pytest.raises(ValueError, match="at least one part"):
        derive_uid()


def test_uid_does_not_depend_on_the_process():
    script = "from reporting.uids import derive_uid; print(derive_uid('study', 'model'))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == derive_uid("study", "model")
