# SPDX-License-Identifier: Apache-2.0
"""By what a session confirmed in person. Of those that did before nobody knows; it counts as a password."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0013"
down_revision = "main_0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("login_session", sa.Column("stepped_by", sa.Text(), nullable=True))
