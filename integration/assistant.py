"""Adapter: the assistant of a site, put together: its ports, its memory and its service.

Conversations lie in the run's folder, so that they go when the run goes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Final

from dicom_node.clock import Clock, utc_now
from dicom_node.ledger import Ledger
from integration.assistant_asides import FOLDER, AsideReader
from integration.assistant_records import RunRecords
from integration.assistant_service import AssistantService
from integration.assistant_sources import KeptComparisons, SiteSources
from integration.pipeline import Pipeline
from integration.run_folder import RunFolder
from integration.settings import Settings
from reporting.assistant.exchange import Planner
from reporting.assistant.graph import Assistant, AssistantLimits
from reporting.assistant.tools import ToolPorts
from reporting.projection import read_views
from reporting.refine.port import LanguageModel

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite import SqliteSaver

_CONVERSATIONS: Final = "conversations.db"
_BUSY_TIMEOUT_S: Final = 30.0


def run_memory(folder_of: Callable[[str], RunFolder]) -> Callable[[str], AbstractContextManager[SqliteSaver]]:
    """Return what opens the memory of a run's conversations: a SQLite file in the run's folder."""

    @contextmanager
    def open_memory(run_id: str) -> Iterator[SqliteSaver]:
        from langgraph.checkpoint.sqlite import SqliteSaver

        path = folder_of(run_id).path / FOLDER / _CONVERSATIONS
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)) as database:
            yield SqliteSaver(database)

    return open_memory


def build_assistant(
    settings: Settings,
    ledger: Ledger,
    pipeline: Pipeline,
    *,
    language_model: LanguageModel | None = None,
    clock: Clock = utc_now,
) -> AssistantService:
    """Return the assistant of a site.

    Parameters
    ----------
    language_model : LanguageModel or None
        What words answers; the assistant does without.
    """
    wanted = settings.assistant
    sources = SiteSources(settings) if settings.library.enabled else None
    aside = AsideReader(
        folder_of=pipeline.folder,
        read=pipeline.read_aside,
        wait_s=wanted.model_wait_s,
        longest_queue=wanted.model_queue,
    )
    assistant = Assistant(
        ports=ToolPorts(
            priors=KeptComparisons(pipeline.folder),
            library=sources,
            graph=sources,
            runner=aside if wanted.is_model_run_allowed else None,
        ),
        memory=run_memory(pipeline.folder),
        language_model=language_model,
        planner=Planner(wanted.planner),
        limits=AssistantLimits(
            question_characters=wanted.question_characters,
            timeout_s=wanted.timeout_s,
            wording_timeout_s=wanted.wording_timeout_s,
            history_turns=wanted.history_turns,
            is_worded=wanted.is_worded,
        ),
    )
    records = RunRecords(
        ledger=ledger,
        folder_of=pipeline.folder,
        views_of=lambda run_id: read_views(pipeline.sources(run_id)),
        packages=pipeline.packages,
    )
    return AssistantService(assistant=assistant, records=records, ledger=ledger, clock=clock, aside=aside)
