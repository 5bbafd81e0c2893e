# SPDX-License-Identifier: Apache-2.0
"""The number of each publication in the catalogue: a withdrawal names it. Those that were there have 0."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0014"
down_revision = "main_0013"
branch_labels = None
depends_on = None

_INT = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


def upgrade() -> None:
    op.add_column("descriptor", sa.Column("number", _INT, nullable=False, server_default="0"))
