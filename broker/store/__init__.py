# SPDX-License-Identifier: Apache-2.0
"""The broker's databases: tables, connections and migrations. Only `broker.log` writes to them."""

from __future__ import annotations

from broker.store.errors import (
    NotMigratedError,
    SchemaUnknownError,
    StoreBusyError,
    StoreError,
    StoreUnreachableError,
    UnsafeSettingsError,
)
from broker.store.session import Session, Store, holds_log

__all__ = [
    "NotMigratedError",
    "SchemaUnknownError",
    "Session",
    "Store",
    "StoreBusyError",
    "StoreError",
    "StoreUnreachableError",
    "UnsafeSettingsError",
    "holds_log",
]
