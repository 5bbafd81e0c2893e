# SPDX-License-Identifier: Apache-2.0
"""The catalogue of data sets, as their owners describe them."""
