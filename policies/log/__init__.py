# SPDX-License-Identifier: Apache-2.0
"""The log: pure code that both ends and the auditor run. Standard library, cryptography and rfc8785 only."""
