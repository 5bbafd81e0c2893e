# SPDX-License-Identifier: Apache-2.0
"""An index of runs by their outcome and contract: which are open, and how many of a contract are not."""

from __future__ import annotations

from alembic import op

revision = "main_0012"
down_revision = "main_0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_run_outcome_contract", "run", ["outcome", "contract"])
