"""SCRAM keys beside the password hash, and what the throttle of logins counts."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not in a batch: SQLite adds and drops a column in place, and `account` has children.
    op.add_column("account", sa.Column("scram_keys", sa.Text))
    secret = op.create_table(
        "secret",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    # Made here, once: every process and every restart has to answer a stranger with the same salt.
    op.bulk_insert(secret, [{"name": "scram", "value": secrets.token_bytes(32)}])
    op.create_table(
        "login",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failed_at", sa.BigInteger),
        sa.Column("succeeded_at", sa.BigInteger),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_login_failed_at", "login", ["failed_at"])


def downgrade() -> None:
    op.drop_table("login")
    op.drop_table("secret")
    op.drop_column("account", "scram_keys")
