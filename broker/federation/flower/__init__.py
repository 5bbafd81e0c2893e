# SPDX-License-Identifier: Apache-2.0
"""Everything of the broker that touches Flower.

Others import `FlowerEngine` from `broker.federation.flower.grid`.
"""
