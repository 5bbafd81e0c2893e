# SPDX-License-Identifier: Apache-2.0
"""Errors of opening the databases.

    StoreError
      UnsafeSettingsError    log.unsafe-settings     a setting under which a receipt could outlive its entry
      SchemaUnknownError     store.schema-unknown    written by another version of this program
      NotMigratedError       store.not-migrated      the owner of the tables has to bring them up to date
      StoreUnreachableError  store.unreachable       no database answers there, or it does not let us in
      StoreBusyError         store.busy              every reading connection is in use

Errors of writing to them are the log's (`broker.log.errors`): there is no write without an entry.
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "NotMigratedError",
    "SchemaUnknownError",
    "StoreBusyError",
    "StoreError",
    "StoreUnreachableError",
    "UnsafeSettingsError",
]


class StoreError(IriaiError):
    """Root of what can go wrong when the databases are opened."""

    code = "store.error"
    exit_code = 3


class UnsafeSettingsError(StoreError):
    """The database does not promise that what is committed is on the disk and stays as it is."""

    code = "log.unsafe-settings"
    http_status = 503


class SchemaUnknownError(StoreError):
    """The database has a schema that this version of the program does not know."""

    code = "store.schema-unknown"


class NotMigratedError(StoreError):
    """The tables are missing or older, and the broker's role may not make them."""

    code = "store.not-migrated"


class StoreUnreachableError(StoreError):
    """The database does not answer, or refuses who asks."""

    code = "store.unreachable"
    exit_code = 5
    http_status = 503


class StoreBusyError(StoreError):
    """Every reading connection was in use for as long as a reader waits for one."""

    code = "store.busy"
    exit_code = 75
    http_status = 503
