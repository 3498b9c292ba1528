"""Adapter: runs count their attempts; workers hold leases."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("runs", sa.Column("attempt", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.create_table(
        "leases",
        sa.Column("executor_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("executor_id", name=op.f("pk_leases")),
    )
