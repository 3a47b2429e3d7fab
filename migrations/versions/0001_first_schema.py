"""The first schema: domains, accounts, aliases, messages in parts, maildrop entries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

message_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "domain",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("alias_of", sa.Integer),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("name", name="uq_domain_name"),
        sa.ForeignKeyConstraint(["alias_of"], ["domain.id"], name="fk_domain_alias_of"),
    )
    op.create_table(
        "account",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("domain_id", sa.Integer, nullable=False),
        sa.Column("local_part", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("uid_validity", sa.BigInteger, nullable=False),
        sa.Column("next_uid", sa.BigInteger, nullable=False),
        sa.Column("octets", sa.BigInteger, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("quota_octets", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("disabled_at", sa.BigInteger),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name="fk_account_domain_id"),
        sa.UniqueConstraint("domain_id", "local_part", name="uq_account_domain_id_local_part"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "alias",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("domain_id", sa.Integer, nullable=False),
        sa.Column("local_part", sa.Text, nullable=False),
        sa.Column("target_domain_id", sa.Integer, nullable=False),
        sa.Column("target_local_part", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name="fk_alias_domain_id"),
        sa.ForeignKeyConstraint(["target_domain_id"], ["domain.id"], name="fk_alias_target_domain_id"),
        sa.UniqueConstraint(
            "domain_id",
            "local_part",
            "target_domain_id",
            "target_local_part",
            name="uq_alias_route",
        ),
    )
    op.create_index("ix_alias_target", "alias", ["target_domain_id", "target_local_part"])
    op.create_table(
        "message",
        sa.Column("id", message_id, primary_key=True),
        sa.Column("octets", sa.BigInteger, nullable=False),
        sa.Column("dotted", sa.Boolean, nullable=False),
        sa.Column("reverse_path", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("mail_id", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "content",
        sa.Column("id", message_id, primary_key=True, autoincrement=False),
        sa.Column("octets", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "entry",
        sa.Column("account_id", sa.Integer, primary_key=True),
        sa.Column("uid", sa.BigInteger, primary_key=True),
        sa.Column("unique_id", sa.Text, nullable=False),
        sa.Column("message_id", sa.BigInteger, nullable=False),
        sa.Column("octets", sa.BigInteger, nullable=False),
        sa.Column("prefix", sa.LargeBinary, nullable=False),
        sa.Column("delivered_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_entry_account_id"),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name="fk_entry_message_id"),
        sa.UniqueConstraint("account_id", "unique_id", name="uq_entry_account_id_unique_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_entry_message_id", "entry", ["message_id"])
    op.create_table(
        "state",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("state", "entry", "content", "message", "alias", "account", "domain"):
        op.drop_table(table)
