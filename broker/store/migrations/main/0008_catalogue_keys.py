# SPDX-License-Identifier: Apache-2.0
"""The key that signed each descriptor and certificate: of older rows, the one that its node has now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0008"
down_revision = "main_0007"
branch_labels = None
depends_on = None

_DESCRIPTOR = """
    UPDATE descriptor SET signed_by =
    coalesce((SELECT node_key FROM organisation WHERE organisation.node_id = descriptor.node_id), '')
"""
_CERTIFICATE = """
    UPDATE certificate SET signed_by =
    coalesce((SELECT node_key FROM organisation WHERE organisation.node_id = certificate.node_id), '')
"""


def upgrade() -> None:
    for table, present in (("descriptor", _DESCRIPTOR), ("certificate", _CERTIFICATE)):
        op.add_column(table, sa.Column("signed_by", sa.Text(), nullable=False, server_default=""))
        op.execute(present)
