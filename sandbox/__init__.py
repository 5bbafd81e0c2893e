# SPDX-License-Identifier: Apache-2.0
"""A whole federation on one machine: cells, processes, demo, report."""
