# SPDX-License-Identifier: Apache-2.0
"""Who audits, what auditors may be shown, what was shown, what was erased, what they concluded."""
