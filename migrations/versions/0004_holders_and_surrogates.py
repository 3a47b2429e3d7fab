"""Who holds a maildrop's lock; surrogates of messages that not every client can read (RFC 6858)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    unlogged = ["UNLOGGED"] if op.get_bind().dialect.name == "postgresql" else []
    op.create_table(
        "maildrop_holder",
        sa.Column("account_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("logged_in_at", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        prefixes=unlogged,
    )
    op.add_column("account", sa.Column("surrogates", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("account", sa.Column("surrogate_octets", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("message", sa.Column("surrogate_id", sa.BigInteger))
    op.create_index(
        "ix_message_surrogate_id",
        "message",
        ["surrogate_id"],
        sqlite_where=sa.text("surrogate_id IS NOT NULL"),
        postgresql_where=sa.text("surrogate_id IS NOT NULL"),
    )
    for table in ("entry", "removed"):
        op.add_column(table, sa.Column("surrogate_octets", sa.BigInteger))
        op.add_column(table, sa.Column("surrogate_prefix", sa.LargeBinary))


def downgrade() -> None:
    for table in ("removed", "entry"):
        op.drop_column(table, "surrogate_prefix")
        op.drop_column(table, "surrogate_octets")
    op.drop_index("ix_message_surrogate_id", "message")
    op.drop_column("message", "surrogate_id")
    op.drop_column("account", "surrogate_octets")
    op.drop_column("account", "surrogates")
    op.drop_table("maildrop_holder")
