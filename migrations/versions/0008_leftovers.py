"""Notes of messages whose content goes after their entries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_PARTS_A_MESSAGE = 1 << 16

_IN_NO_MAILDROP = """
SELECT DISTINCT message.id, message.surrogate_id
FROM message JOIN leftover ON leftover.message_id = message.id
WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.message_id = message.id)
  AND NOT EXISTS (SELECT 1 FROM removed WHERE removed.message_id = message.id)
"""


def upgrade() -> None:
    op.create_table(
        "leftover",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("message_id", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Finish what the notes are about: an older program would not know that it is to be done."""
    connection = op.get_bind()
    found = connection.execute(sa.text(_IN_NO_MAILDROP)).all()
    for number in {each for row in found for each in row if each is not None}:
        first = number * _PARTS_A_MESSAGE
        connection.execute(
            sa.text("DELETE FROM content WHERE id >= :first AND id < :behind"),
            {"first": first, "behind": first + _PARTS_A_MESSAGE},
        )
        connection.execute(sa.text("DELETE FROM message WHERE id = :number"), {"number": number})
    op.drop_table("leftover")
