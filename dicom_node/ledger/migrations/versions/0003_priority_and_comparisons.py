"""Adapter: runs carry the priority that their findings gave them; shadows are compared."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column(
        "runs", sa.Column("priority", sa.Text(), nullable=False, server_default=sa.text("'routine'"))
    )
    op.add_column(
        "runs", sa.Column("priority_reason", sa.Text(), nullable=False, server_default=sa.text("''"))
    )
    op.create_table(
        "comparisons",
        sa.Column("case_id", sa.Text(), nullable=False),
        sa.Column("champion", sa.Text(), nullable=False),
        sa.Column("challenger", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("compared_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("champion_answer", sa.Text(), nullable=False),
        sa.Column("challenger_answer", sa.Text(), nullable=False),
        sa.Column("champion_probability", sa.Float(), nullable=True),
        sa.Column("challenger_probability", sa.Float(), nullable=True),
        sa.Column("champion_count", sa.Integer(), nullable=False),
        sa.Column("challenger_count", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("case_id", "champion", "challenger", "label", name=op.f("pk_comparisons")),
    )
