# SPDX-License-Identifier: Apache-2.0
"""The node's side of contracts: read, negotiate, sign, keep, stop, leave."""
