# SPDX-License-Identifier: Apache-2.0
"""Counterparties of the Dataspace Protocol, their negotiations, and the agreements that came of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0003"
down_revision = "main_0002"
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "dsp_counterparty",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("participant", sa.Text(), nullable=False),
        sa.Column("callback", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), nullable=True),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dsp_counterparty")),
        sqlite_strict=True,
    )
    op.create_table(
        "dsp_negotiation",
        sa.Column("provider_pid", sa.Text(), nullable=False),
        sa.Column("consumer_pid", sa.Text(), nullable=False),
        sa.Column("counterparty", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("offer", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("rounds", _INT, nullable=False),
        sa.Column("deadline_ms", _INT, nullable=True),
        sa.Column("at_ms", _INT, nullable=False),
        sa.ForeignKeyConstraint(
            ["counterparty"],
            ["dsp_counterparty.name"],
            name=op.f("fk_dsp_negotiation_counterparty_dsp_counterparty"),
        ),
        sa.ForeignKeyConstraint(
            ["contract"],
            ["contract_document.digest"],
            name=op.f("fk_dsp_negotiation_contract_contract_document"),
        ),
        sa.PrimaryKeyConstraint("provider_pid", name=op.f("pk_dsp_negotiation")),
        sa.UniqueConstraint(
            "counterparty", "consumer_pid", name=op.f("uq_dsp_negotiation_counterparty_consumer_pid")
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "dsp_message",
        sa.Column("provider_pid", sa.Text(), nullable=False),
        sa.Column("seq", _INT, autoincrement=False, nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.Column("tried_ms", _INT, nullable=True),
        sa.Column("answer", _INT, nullable=True),
        sa.ForeignKeyConstraint(
            ["provider_pid"],
            ["dsp_negotiation.provider_pid"],
            name=op.f("fk_dsp_message_provider_pid_dsp_negotiation"),
        ),
        sa.PrimaryKeyConstraint("provider_pid", "seq", name=op.f("pk_dsp_message")),
        sqlite_strict=True,
    )
    op.create_table(
        "dsp_agreement",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider_pid", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("counterparty", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_pid"],
            ["dsp_negotiation.provider_pid"],
            name=op.f("fk_dsp_agreement_provider_pid_dsp_negotiation"),
        ),
        sa.ForeignKeyConstraint(
            ["contract"],
            ["contract_document.digest"],
            name=op.f("fk_dsp_agreement_contract_contract_document"),
        ),
        sa.ForeignKeyConstraint(
            ["counterparty"],
            ["dsp_counterparty.name"],
            name=op.f("fk_dsp_agreement_counterparty_dsp_counterparty"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dsp_agreement")),
        sqlite_strict=True,
    )
