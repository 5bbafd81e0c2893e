# SPDX-License-Identifier: Apache-2.0
"""The node's side of secure aggregation: which sums it takes part in, and what of it leaves.

    agreed      terms of a run, from this node's own contract and recipe; the grid of noise shares
    machines    one protocol machine per run, in memory
    updates     the update of a round, kept for its next attempt
    thread      models of a run, as its sums gave them
    following   whether an opened sum is right, and the model follows from it
    masking     how an update leaves: masked
    duties      the messages beside the update

Secrets are in memory only (`policies.secagg.node`): keys, shares and unmasked updates are in no file, no
error and no log line, and end with the process.
"""
