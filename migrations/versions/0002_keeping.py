"""Keeping mail: digests, what was read when, removed entries, limits of accounts and domains."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LIMITS = ("quota_octets", "quota_messages", "keep_seconds", "keep_read_seconds", "keep_messages")


def upgrade() -> None:
    # ADD COLUMN as it stands: a batch operation would write tables of any size anew.
    op.add_column("message", sa.Column("digests", sa.LargeBinary))
    op.add_column("message", sa.Column("damaged_at", sa.BigInteger))
    op.add_column("entry", sa.Column("first_read_at", sa.BigInteger))
    op.add_column("account", sa.Column("quota_warned", sa.SmallInteger, nullable=False, server_default="0"))
    for name in _LIMITS:
        op.add_column("domain", sa.Column(name, sa.BigInteger))
        if name != "quota_octets":
            op.add_column("account", sa.Column(name, sa.BigInteger))
    op.create_table(
        "removed",
        sa.Column("account_id", sa.Integer, primary_key=True),
        sa.Column("uid", sa.BigInteger, primary_key=True),
        sa.Column("unique_id", sa.Text, nullable=False),
        sa.Column("message_id", sa.BigInteger, nullable=False),
        sa.Column("octets", sa.BigInteger, nullable=False),
        sa.Column("prefix", sa.LargeBinary, nullable=False),
        sa.Column("delivered_at", sa.BigInteger, nullable=False),
        sa.Column("first_read_at", sa.BigInteger),
        sa.Column("removed_at", sa.BigInteger, nullable=False),
        sa.Column("removed_by", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_removed_account_id"),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name="fk_removed_message_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_removed_message_id", "removed", ["message_id"])
    op.create_index("ix_removed_removed_at", "removed", ["removed_at"])


def downgrade() -> None:
    # What could still be brought back becomes what the older program calls it: in no maildrop.
    # Its `database check --repair` removes such messages.
    op.drop_table("removed")
    for name in reversed(_LIMITS):
        if name != "quota_octets":
            op.drop_column("account", name)
        op.drop_column("domain", name)
    op.drop_column("account", "quota_warned")
    op.drop_column("entry", "first_read_at")
    op.drop_column("message", "damaged_at")
    op.drop_column("message", "digests")
