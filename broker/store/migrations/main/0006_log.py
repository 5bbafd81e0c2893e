# SPDX-License-Identifier: Apache-2.0
"""Tiles, cosignatures and time stamps of the log; its witnesses; auditors and what they may open."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0006"
down_revision = "main_0005"
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "log_tile",
        sa.Column("level", _INT, autoincrement=False, nullable=False),
        sa.Column("n", _INT, autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "n", name=op.f("pk_log_tile")),
        sqlite_strict=True,
    )
    op.create_table(
        "log_cosignature",
        sa.Column("size", _INT, autoincrement=False, nullable=False),
        sa.Column("witness", sa.Text(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("received_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("size", "witness", name=op.f("pk_log_cosignature")),
        sqlite_strict=True,
    )
    op.create_table(
        "log_timestamp",
        sa.Column("size", _INT, autoincrement=False, nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_timestamp")),
        sqlite_strict=True,
    )
    op.create_table(
        "witness",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("vkey", sa.Text(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_witness")),
        sqlite_strict=True,
    )
    op.create_table(
        "auditor",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_auditor")),
        sqlite_strict=True,
    )
    op.create_table(
        "access_grant",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("grantee", sa.Text(), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.Column("from_index", _INT, nullable=False),
        sa.Column("until_ms", _INT, nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.ForeignKeyConstraint(["grantee"], ["auditor.name"], name=op.f("fk_access_grant_grantee_auditor")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_grant")),
        sqlite_strict=True,
    )
