# SPDX-License-Identifier: Apache-2.0
"""The screens of the node's page: each is a function from this node and an address to a `Screen`."""
