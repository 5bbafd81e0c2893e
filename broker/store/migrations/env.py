# SPDX-License-Identifier: Apache-2.0
"""What Alembic runs: the open transaction of `broker.store.migrations.migrate`, and nothing else."""

from __future__ import annotations

from alembic import context

from broker.store import tables

_METADATA = {"main": tables.main, "private": tables.private, "signer": tables.signer}

_attributes = context.config.attributes
context.configure(
    connection=_attributes["connection"],
    target_metadata=_METADATA[_attributes["database"]],
    transaction_per_migration=False,
)
context.run_migrations()
