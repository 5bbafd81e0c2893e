# SPDX-License-Identifier: Apache-2.0
"""The node's budget: durable, chained, and lost only by refusing to train. Holds no torch."""
