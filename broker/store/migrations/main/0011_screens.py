# SPDX-License-Identifier: Apache-2.0
"""Indexes for people's screens: what a run has of one kind, refusals, runs by their opening, steps taken."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0011"
down_revision = "main_0010"
branch_labels = None
depends_on = None

_REFUSED = {
    "sqlite": """instr(body, CAST('"outcome":"refuse"' AS BLOB)) > 0""",
    "postgresql": """position('"outcome":"refuse"'::bytea in body) > 0""",
}


def upgrade() -> None:
    op.create_index(op.f("ix_log_entry_run_type"), "log_entry", ["run", "type"])
    op.create_index(
        "ix_log_entry_refused",
        "log_entry",
        ["idx"],
        sqlite_where=sa.text(_REFUSED["sqlite"]),
        postgresql_where=sa.text(_REFUSED["postgresql"]),
    )
    op.create_index("ix_ledger_mirror_steps", "ledger_mirror", ["run_id", "party", "steps"])
    op.create_index(op.f("ix_run_opened_ms_run_id"), "run", ["opened_ms", "run_id"])
