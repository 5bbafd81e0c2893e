# SPDX-License-Identifier: Apache-2.0
"""Errors of opening the databases.

    StoreError
      UnsafeSettingsError    log.unsafe-settings     a pragma under which a receipt could outlive its entry
      SchemaUnknownError     store.schema-unknown    written by another version of this program

Errors of writing to them are the log's (`broker.log.errors`): there is no write without an entry.
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = ["SchemaUnknownError", "StoreError", "UnsafeSettingsError"]


class StoreError(IriaiError):
    """Root of what can go wrong when the databases are opened."""

    code = "store.error"
    exit_code = 3


class UnsafeSettingsError(StoreError):
    """The database does not promise that what is committed is on the disk."""

    code = "log.unsafe-settings"


class SchemaUnknownError(StoreError):
    """The database has a schema that this version of the program does not know."""

    code = "store.schema-unknown"
