# SPDX-License-Identifier: Apache-2.0
"""The first tables of the signer's database: what it signed, and whether it still signs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "signer_0001"
down_revision = None
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "last_signed",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("size", _INT, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("signed_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("origin", name=op.f("pk_last_signed")),
        sqlite_strict=True,
    )
    op.create_table(
        "state",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("origin", name=op.f("pk_state")),
        sqlite_strict=True,
    )
