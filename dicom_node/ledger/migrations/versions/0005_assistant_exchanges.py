"""Adapter: the assistant's audit trail: who asked what, and what became of it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TEXTS = (
    "question", "question_sha256", "outcome", "refusal", "intent", "planner", "tools", "answer",
    "answer_sha256", "citations", "language_model", "verdict",
)  # fmt: skip


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "assistant_exchanges",
        sa.Column("exchange_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("study_key", sa.Text(), nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _TEXTS),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("exchange_id", name=op.f("pk_assistant_exchanges")),
    )
    for columns in (["run_id", "asked_at"], ["asked_at"], ["study_key"]):
        name = f"ix_assistant_exchanges_{'_'.join(columns)}"
        op.create_index(op.f(name), "assistant_exchanges", columns, unique=False)
