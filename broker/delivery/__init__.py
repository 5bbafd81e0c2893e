# SPDX-License-Identifier: Apache-2.0
"""The release gate's doors: votes and downloads."""
