# SPDX-License-Identifier: Apache-2.0
"""The release gate: a candidate, what lies with it, and the contract's decision about it."""
