# SPDX-License-Identifier: Apache-2.0
"""When each change was answered; those of before count from the newest entry of the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0015"
down_revision = "main_0014"
branch_labels = None
depends_on = None

_INT = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


def upgrade() -> None:
    op.add_column("idempotency", sa.Column("at_ms", _INT, nullable=True))
    op.execute("UPDATE idempotency SET at_ms = (SELECT COALESCE(MAX(ts_ms), 0) FROM log_entry)")
    op.create_index(op.f("ix_idempotency_at_ms"), "idempotency", ["at_ms"])
