"""Adapter: studies know whose they are, as a keyed hash, and when they were acquired."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; studies that were received before are matched with none."""
    op.add_column("studies", sa.Column("patient_key", sa.Text(), nullable=True))
    op.add_column("studies", sa.Column("studied_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_studies_patient_key"), "studies", ["patient_key"], unique=False)
