# SPDX-License-Identifier: Apache-2.0
"""Certificates of quality, and what other members see of a descriptor: of older ones what they saw so far."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0007"
down_revision = "main_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("descriptor", sa.Column("shown", sa.Text(), nullable=False, server_default="fits"))
    op.create_table(
        "certificate",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "dataset", name=op.f("pk_certificate")),
        sqlite_strict=True,
    )
