# SPDX-License-Identifier: Apache-2.0
"""The broker's side of federation.

The engine that carries exchanges, and the rounds that are made of them.
"""
