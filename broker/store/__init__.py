# SPDX-License-Identifier: Apache-2.0
"""The broker's databases: tables, connections and migrations. Only `broker.log` writes to them."""

from __future__ import annotations

from broker.store.errors import SchemaUnknownError, StoreError, UnsafeSettingsError
from broker.store.session import Session, Store

__all__ = ["SchemaUnknownError", "Session", "Store", "StoreError", "UnsafeSettingsError"]
