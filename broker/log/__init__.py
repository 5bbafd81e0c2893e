# SPDX-License-Identifier: Apache-2.0
"""The broker's log: one writer, a signer, receipts, the auditor's bundle."""

from __future__ import annotations

from broker.log.append import Writer
from broker.log.bundle import Exported, export
from broker.log.errors import (
    LogConflictError,
    LogError,
    LogFrozenError,
    LogRolledBackError,
    LogUnavailableError,
    NotInLogError,
)
from broker.log.receipts import Head, Receipts
from broker.log.signer import Freeze, FreezeReason, SignedHead, Signer
from broker.log.transaction import LogTx

__all__ = [
    "Exported",
    "Freeze",
    "FreezeReason",
    "Head",
    "LogConflictError",
    "LogError",
    "LogFrozenError",
    "LogRolledBackError",
    "LogTx",
    "LogUnavailableError",
    "NotInLogError",
    "Receipts",
    "SignedHead",
    "Signer",
    "Writer",
    "export",
]
