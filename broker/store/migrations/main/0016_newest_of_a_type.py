# SPDX-License-Identifier: Apache-2.0
"""The newest entries of a type are read in order; on PostgreSQL the index has to have that order itself."""

from __future__ import annotations

from alembic import op

revision = "main_0016"
down_revision = "main_0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index(op.f("ix_log_entry_type"), table_name="log_entry")
    op.create_index(op.f("ix_log_entry_type"), "log_entry", ["type", "idx"])
