# SPDX-License-Identifier: Apache-2.0
"""What is for anybody: openly released models."""
