# SPDX-License-Identifier: Apache-2.0
"""The auditor's own witness: cosigns what extends what it cosigned before, and nothing else.

`store` checks and persists in one step, `push` answers logs that call (C2SP tlog-witness), `pull` asks a
log over TLS with a pinned certificate. The decision itself is `policies.log.witness.consider`.
"""
