"""Pure. From a drafted report to a refined one, and the proof that nothing was added or lost.

``port.py`` is what a language model is to Preread, ``prompt.py`` and ``answer.py`` what it
is asked and must answer, ``repair.py`` and ``layout.py`` how an answer becomes a report,
``refinement.py`` the whole way with its record. A site without a language model loses
nothing: the draft stands, and its provenance says so.
"""
