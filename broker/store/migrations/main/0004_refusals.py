# SPDX-License-Identifier: Apache-2.0
"""What attempts came to for whom, and why a run waits, was stopped or failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0004"
down_revision = "main_0003"
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("run", sa.Column("stop_ms", _INT, nullable=True))
    op.add_column("run", sa.Column("start", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("error", sa.Text(), nullable=True))
    op.add_column("round", sa.Column("reasons", sa.Text(), nullable=True))
    op.add_column("round", sa.Column("held_up", _INT, nullable=True))
    op.add_column("round", sa.Column("trained", _INT, nullable=True))
