"""Adapter: the first schema of the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "associations",
        sa.Column("association_id", sa.Text(), nullable=False),
        sa.Column("source_ae", sa.Text(), nullable=False),
        sa.Column("receiver_id", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("was_aborted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("association_id", name=op.f("pk_associations")),
    )
    op.create_index(op.f("ix_associations_source_ae"), "associations", ["source_ae"], unique=False)
    op.create_table(
        "instances",
        sa.Column("instance_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("source_ae", sa.Text(), nullable=False),
        sa.Column("source_address", sa.Text(), nullable=False),
        sa.Column("association_id", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("is_conflict", sa.Boolean(), nullable=False),
        sa.Column("is_own_result", sa.Boolean(), nullable=False),
        sa.Column("study_key", sa.Text(), nullable=True),
        sa.Column("series_uid", sa.Text(), nullable=True),
        sa.Column("modality", sa.Text(), nullable=True),
        sa.Column("series_description", sa.Text(), nullable=True),
        sa.Column("body_part", sa.Text(), nullable=True),
        sa.Column("series_number", sa.Integer(), nullable=True),
        sa.Column("instance_number", sa.Integer(), nullable=True),
        sa.Column("number_of_frames", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_instances")),
    )
    op.create_index(op.f("ix_instances_association_id"), "instances", ["association_id"], unique=False)
    op.create_index(
        op.f("ix_instances_sop_instance_uid_digest_transfer_syntax_uid"),
        "instances",
        ["sop_instance_uid", "digest", "transfer_syntax_uid"],
        unique=True,
    )
    op.create_index(
        op.f("ix_instances_state_instance_id"), "instances", ["state", "instance_id"], unique=False
    )
    op.create_index(op.f("ix_instances_study_key"), "instances", ["study_key"], unique=False)
    op.create_index(
        "uq_instances_current",
        "instances",
        ["sop_instance_uid"],
        unique=True,
        sqlite_where=sa.text("NOT is_conflict AND sop_instance_uid <> ''"),
        postgresql_where=sa.text("NOT is_conflict AND sop_instance_uid <> ''"),
    )
    op.create_table(
        "notices",
        sa.Column("study_key", sa.Text(), nullable=False),
        sa.Column("stable_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expected_count", sa.Integer(), nullable=True),
        sa.Column("expected_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("study_key", name=op.f("pk_notices")),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("study_key", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("instance_digest", sa.Text(), nullable=False),
        sa.Column("predecessor", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("crash_count", sa.Integer(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["predecessor"], ["runs.run_id"], name=op.f("fk_runs_predecessor")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_state"), "runs", ["state"], unique=False)
    op.create_index(op.f("ix_runs_study_key_version"), "runs", ["study_key", "version"], unique=True)
    op.create_table(
        "studies",
        sa.Column("study_key", sa.Text(), nullable=False),
        sa.Column("study_uid", sa.Text(), nullable=False),
        sa.Column("source_ae", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("is_collecting", sa.Boolean(), nullable=False),
        sa.Column("first_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("collecting_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_run_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("study_key", name=op.f("pk_studies")),
    )
    op.create_index(op.f("ix_studies_is_collecting"), "studies", ["is_collecting"], unique=False)
    op.create_index(op.f("ix_studies_last_received_at"), "studies", ["last_received_at"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("object_uid", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("receipt", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_deliveries_run_id")),
        sa.PrimaryKeyConstraint("object_uid", "destination", name=op.f("pk_deliveries")),
    )
    op.create_index(
        op.f("ix_deliveries_destination_state"), "deliveries", ["destination", "state"], unique=False
    )
    op.create_index(op.f("ix_deliveries_run_id"), "deliveries", ["run_id"], unique=False)
    op.create_table(
        "outputs",
        sa.Column("object_uid", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("series_uid", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_outputs_run_id")),
        sa.PrimaryKeyConstraint("object_uid", name=op.f("pk_outputs")),
    )
    op.create_index(op.f("ix_outputs_run_id"), "outputs", ["run_id"], unique=False)


def downgrade() -> None:
    """Drop the tables."""
    op.drop_index(op.f("ix_outputs_run_id"), table_name="outputs")
    op.drop_table("outputs")
    op.drop_index(op.f("ix_deliveries_run_id"), table_name="deliveries")
    op.drop_index(op.f("ix_deliveries_destination_state"), table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_index(op.f("ix_studies_last_received_at"), table_name="studies")
    op.drop_index(op.f("ix_studies_is_collecting"), table_name="studies")
    op.drop_table("studies")
    op.drop_index(op.f("ix_runs_study_key_version"), table_name="runs")
    op.drop_index(op.f("ix_runs_state"), table_name="runs")
    op.drop_table("runs")
    op.drop_table("notices")
    op.drop_index(
        "uq_instances_current",
        table_name="instances",
        sqlite_where=sa.text("NOT is_conflict AND sop_instance_uid <> ''"),
        postgresql_where=sa.text("NOT is_conflict AND sop_instance_uid <> ''"),
    )
    op.drop_index(op.f("ix_instances_study_key"), table_name="instances")
    op.drop_index(op.f("ix_instances_state_instance_id"), table_name="instances")
    op.drop_index(op.f("ix_instances_sop_instance_uid_digest_transfer_syntax_uid"), table_name="instances")
    op.drop_index(op.f("ix_instances_association_id"), table_name="instances")
    op.drop_table("instances")
    op.drop_index(op.f("ix_associations_source_ae"), table_name="associations")
    op.drop_table("associations")
