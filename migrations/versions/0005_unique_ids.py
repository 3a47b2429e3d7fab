"""No index of the unique-ids that we give ourselves; they end in what is the key already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_FOREIGN = {
    "sqlite_where": sa.text("unique_id NOT LIKE '%.' || uid"),
    "postgresql_where": sa.text("unique_id NOT LIKE '%.' || uid"),
}


def upgrade() -> None:
    with op.batch_alter_table("entry", table_kwargs={"sqlite_with_rowid": False}) as entry:
        entry.drop_constraint("uq_entry_account_id_unique_id", type_="unique")
    op.create_index("ix_entry_foreign_id", "entry", ["account_id", "unique_id"], unique=True, **_FOREIGN)


def downgrade() -> None:
    op.drop_index("ix_entry_foreign_id", "entry")
    with op.batch_alter_table("entry", table_kwargs={"sqlite_with_rowid": False}) as entry:
        entry.create_unique_constraint("uq_entry_account_id_unique_id", ["account_id", "unique_id"])
