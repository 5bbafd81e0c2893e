# SPDX-License-Identifier: Apache-2.0
"""Contracts between offer and execution, and the broker's decisions under them."""
