# SPDX-License-Identifier: Apache-2.0
"""Runs as operators open them and parties see them."""
