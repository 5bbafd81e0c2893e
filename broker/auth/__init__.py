# SPDX-License-Identifier: Apache-2.0
"""People: who they are, how they log in, and what they confirm in person."""
