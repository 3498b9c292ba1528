from __future__ import annotations

import gc
import warnings


def pytest_sessionfinish() -> None:
    """Collect what associations with killed nodes leave behind.

    pynetdicom closes the socket of a peer that died when the garbage collector finds it. pytest would
    take the warnings that come with that for failures of the session, long after every test has passed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(3):
            gc.collect()
