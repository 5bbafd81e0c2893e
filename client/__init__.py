# SPDX-License-Identifier: Apache-2.0
"""A manufacturer's node: its data, its guard, its training, and the one way out of the site."""
