# SPDX-License-Identifier: Apache-2.0
"""Negotiation in lanes, and the signed notices of a contract's life."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0002"
down_revision = "main_0001"
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "contract_notice",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("seq", _INT, nullable=False),
        sa.Column("refers", sa.Text(), nullable=True),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.ForeignKeyConstraint(
            ["contract"],
            ["contract_document.digest"],
            name=op.f("fk_contract_notice_contract_contract_document"),
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_contract_notice")),
        sa.UniqueConstraint("contract", "party", "seq", name=op.f("uq_contract_notice_contract_party_seq")),
        sqlite_strict=True,
    )
    op.create_table(
        "negotiation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("contract_id", sa.Text(), nullable=False),
        sa.Column("version", _INT, nullable=False),
        sa.Column("round", _INT, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("pool", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_negotiation")),
        sqlite_strict=True,
    )
    op.create_table(
        "lane",
        sa.Column("pid", sa.Text(), nullable=False),
        sa.Column("negotiation", sa.Text(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("round", _INT, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("deadline_ms", _INT, nullable=True),
        sa.Column("last_hash", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["negotiation"], ["negotiation.id"], name=op.f("fk_lane_negotiation_negotiation")
        ),
        sa.PrimaryKeyConstraint("pid", name=op.f("pk_lane")),
        sa.UniqueConstraint("negotiation", "party", "round", name=op.f("uq_lane_negotiation_party_round")),
        sqlite_strict=True,
    )
    op.create_table(
        "lane_message",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("pid", sa.Text(), nullable=False),
        sa.Column("seq", _INT, nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.ForeignKeyConstraint(["pid"], ["lane.pid"], name=op.f("fk_lane_message_pid_lane")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lane_message")),
        sa.UniqueConstraint("pid", "seq", name=op.f("uq_lane_message_pid_seq")),
        sqlite_strict=True,
    )
