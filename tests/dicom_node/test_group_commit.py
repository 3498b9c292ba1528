from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from dicom_node.ledger.group_commit import GroupCommit


def test_callers_that_come_during_a_commit_share_the_next_one() -> None:
    first_runs, go_on = threading.Event(), threading.Event()
    batches: list[list[int]] = []

    def apply(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        if len(batches) == 1:
            first_runs.set()
            assert go_on.wait(10)
        return [item * 10 for item in items]

    group: GroupCommit[int, int] = GroupCommit(apply)
    results: dict[int, int] = {}

    def submit(item: int) -> None:
        results[item] = group.submit(item)

    leader = threading.Thread(target=submit, args=(0,))
    leader.start()
    assert first_runs.wait(10)
    others = [threading.Thread(target=submit, args=(item,)) for item in range(1, 9)]
    for thread in others:
        thread.start()
    while len(group._waiting) < 8:
        pass
    go_on.set()
    for thread in (leader, *others):
        thread.join(10)
    assert [len(batch) for batch in batches] == [1, 8]
    assert results == {item: item * 10 for item in range(9)}


def test_one_bad_item_does_not_fail_its_neighbours() -> None:
    def apply(items: Sequence[int]) -> list[int]:
        if -1 in items:
            raise ValueError("bad")
        return list(items)

    group: GroupCommit[int, int] = GroupCommit(apply)
    with pytest.raises(ValueError, match="bad"):
        group.submit(-1)
    results: list[int | str] = []

    def submit(item: int) -> None:
        try:
            results.append(group.submit(item))
        except ValueError:
            results.append("failed")

    with group._leading:
        threads = [threading.Thread(target=submit, args=(item,)) for item in (1, -1, 2)]
        for thread in threads:
            thread.start()
        while len(group._waiting) < 3:
            pass
    for thread in threads:
        thread.join(10)
    assert sorted(map(str, results)) == ["1", "2", "failed"]
