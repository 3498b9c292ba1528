"""Pure. The tables of the ledger, for SQLite and PostgreSQL alike.

A change here needs a migration in ``migrations/versions``; a test holds that
all migrations together give exactly these tables.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)

_NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=_NAMING)

#: 64 bits everywhere; SQLite numbers rows by itself only for INTEGER.
ROW_ID: Final = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware point in time, stored and returned in UTC on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; convert to UTC."""
        del dialect
        if value is not None and value.tzinfo is None:
            raise ValueError("the ledger takes aware times only: pass datetime.now(UTC)")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware UTC time; SQLite returns the naive UTC time that was stored."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


associations = Table(
    "associations",
    metadata,
    Column("association_id", Text, primary_key=True),
    Column("source_ae", Text, nullable=False),
    Column("receiver_id", Text, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("was_aborted", Boolean, nullable=False),
    Index(None, "source_ae"),
)

instances = Table(
    "instances",
    metadata,
    Column("instance_id", ROW_ID, primary_key=True),
    Column("sop_instance_uid", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("source_ae", Text, nullable=False),
    Column("source_address", Text, nullable=False),
    Column("association_id", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("is_conflict", Boolean, nullable=False),
    Column("is_own_result", Boolean, nullable=False),
    Column("study_key", Text),
    Column("series_uid", Text),
    Column("modality", Text),
    Column("series_description", Text),
    Column("body_part", Text),
    Column("series_number", Integer),
    Column("instance_number", Integer),
    Column("number_of_frames", Integer),
    # One current instance per UID. Instances without a UID are told apart by digest alone.
    Index(
        "uq_instances_current",
        "sop_instance_uid",
        unique=True,
        sqlite_where=text("NOT is_conflict AND sop_instance_uid <> ''"),
        postgresql_where=text("NOT is_conflict AND sop_instance_uid <> ''"),
    ),
    Index(None, "sop_instance_uid", "digest", "transfer_syntax_uid", unique=True),
    Index(None, "study_key"),
    Index(None, "association_id"),
    Index(None, "state", "instance_id"),
)

studies = Table(
    "studies",
    metadata,
    Column("study_key", Text, primary_key=True),
    Column("study_uid", Text, nullable=False),
    Column("source_ae", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("is_collecting", Boolean, nullable=False),
    Column("first_received_at", UtcDateTime, nullable=False),
    Column("collecting_since", UtcDateTime, nullable=False),
    Column("last_received_at", UtcDateTime, nullable=False),
    Column("last_run_id", Text),
    Column("patient_key", Text),
    Column("studied_at", UtcDateTime),
    Index(None, "patient_key"),
    Index(None, "is_collecting"),
    Index(None, "last_received_at"),
)

#: What sources announce of a study; may come before its first instance.
notices = Table(
    "notices",
    metadata,
    Column("study_key", Text, primary_key=True),
    Column("stable_at", UtcDateTime),
    Column("expected_count", Integer),
    Column("expected_at", UtcDateTime),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("study_key", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("instance_digest", Text, nullable=False),
    Column("predecessor", Text, ForeignKey("runs.run_id")),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("crash_count", Integer, nullable=False),
    Column("decision", Text),
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    Column("priority", Text, nullable=False, server_default=text("'routine'")),
    Column("priority_reason", Text, nullable=False, server_default=text("''")),
    Index(None, "study_key", "version", unique=True),
    Index(None, "state"),
)

outputs = Table(
    "outputs",
    metadata,
    Column("object_uid", Text, primary_key=True),
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("series_uid", Text, nullable=False),
    Index(None, "run_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("object_uid", Text, primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("queued_at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    Column("confirmed_at", UtcDateTime),
    Column("next_attempt_at", UtcDateTime),
    Column("receipt", Text, nullable=False),
    Column("error", Text, nullable=False),
    Index(None, "run_id"),
    Index(None, "destination", "state"),
)

#: What two models said of the same study: a shadow beside an active model. A case is named by a digest of
#: its run and outlives the study, since it says nothing of the patient.
comparisons = Table(
    "comparisons",
    metadata,
    Column("case_id", Text, primary_key=True),
    Column("champion", Text, primary_key=True),
    Column("challenger", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("compared_at", UtcDateTime, nullable=False),
    Column("champion_answer", Text, nullable=False),
    Column("challenger_answer", Text, nullable=False),
    Column("champion_probability", Float),
    Column("challenger_probability", Float),
    Column("champion_count", Integer, nullable=False),
    Column("challenger_count", Integer, nullable=False),
    Column("overlap", Float),
)

#: Who asked the assistant what, and what became of it. The texts are emptied when their study is forgotten.
assistant_exchanges = Table(
    "assistant_exchanges",
    metadata,
    Column("exchange_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("study_key", Text, nullable=False),
    Column("conversation", Text, nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("question_sha256", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("refusal", Text, nullable=False),
    Column("intent", Text, nullable=False),
    Column("planner", Text, nullable=False),
    Column("tools", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("answer_sha256", Text, nullable=False),
    Column("citations", Text, nullable=False),
    Column("language_model", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Index(None, "run_id", "asked_at"),
    Index(None, "asked_at"),
    Index(None, "study_key"),
)

#: Which workers are alive; a worker whose lease ran out has its work adopted by another.
leases = Table(
    "leases",
    metadata,
    Column("executor_id", Text, primary_key=True),
    Column("expires_at", UtcDateTime, nullable=False),
)
