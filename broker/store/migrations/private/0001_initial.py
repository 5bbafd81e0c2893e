# SPDX-License-Identifier: Apache-2.0
"""The first table of the private database: salts and confidential values."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "private_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_private",
        sa.Column("event_id", sa.LargeBinary(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "field", name=op.f("pk_log_private")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
