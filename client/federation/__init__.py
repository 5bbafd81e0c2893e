# SPDX-License-Identifier: Apache-2.0
"""The node's side of federation.

One outbound connection, a closed table of handlers, and a ledger of what was answered.

`client.federation.handlers` and `ledger` know nothing of Flower; `fleet` is the only module that connects;
`supervise` is the parent
process and imports the standard library only.
"""
