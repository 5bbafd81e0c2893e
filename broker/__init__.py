# SPDX-License-Identifier: Apache-2.0
"""The neutral third party: membership, contracts, rounds, the log, the release gate."""
