# SPDX-License-Identifier: Apache-2.0
"""This node as a witness of its broker's log: key, loop, whom it believes, and its alarms."""
