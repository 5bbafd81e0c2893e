# SPDX-License-Identifier: Apache-2.0
"""Whether the sum of an attempt may have been opened."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0005"
down_revision = "main_0004"
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("round", sa.Column("unmasked", _INT, nullable=True))
