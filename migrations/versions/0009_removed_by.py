"""An index of removed entries by who removed them: each kind is forgotten after a time of its own."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_removed_removed_by_removed_at", "removed", ["removed_by", "removed_at"])
    op.drop_index("ix_removed_removed_at", "removed")


def downgrade() -> None:
    op.create_index("ix_removed_removed_at", "removed", ["removed_at"])
    op.drop_index("ix_removed_removed_by_removed_at", "removed")
