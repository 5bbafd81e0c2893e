# SPDX-License-Identifier: Apache-2.0
"""Secure aggregation: the broker learns one sum over many silos, and nothing about a single one.

Both ends as state machines without I/O, and what an auditor redoes. Modules are imported by name: the
verifier loads `terms`, `documents` and `transcript` with the standard library and `cryptography` only.

    terms        what contract and recipe fix: roster, threshold, ring, weights
    agreed       the terms of a run, from the bytes that everybody signed
    noise_room   whether noise shares fit the ring
    labels       hashes and keys, each with its own label
    shamir       secret sharing
    ring         from numbers to the ring and back
    keystream    mask bytes of a key; the lane of counts beside a vector
    masks        keystreams, fused with quantising; taking them off a sum
    sums         masked vectors, added up as they arrive
    group_mac    a tag that finds a wrong sum in the same round
    contexts     what signatures and masks are bound to, and the keys that follow
    documents    what is signed: adverts, share headers, masked vectors, confirmations
    dealing      shares, sealed for each holder
    asks         the bytes that broker and node exchange; packing joins several into one
    node         the node's side of a setup and its slots; holding, slots and rules are its parts
    collector    the broker's side; setups, attempts and revealing are its parts
    probes       rounds with teams: which they are, and who is in which team
    sum_keys     what a node keeps of its setups, to check sums that are shown later
    record       the bytes that stay of an opened sum
    opening      which masks are left in a sum, by the secrets that were revealed
    transcript   what the record of an opened sum proves, and redoing the sum
    recompute    a sum from vectors and keys, without numpy
"""
