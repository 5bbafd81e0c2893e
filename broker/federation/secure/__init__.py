# SPDX-License-Identifier: Apache-2.0
"""The broker's side of secure aggregation: it opens sums over many members, and learns no single update.

The protocol is `policies.secagg.collector`; here are exchanges, files and what becomes of those who are
wrong. A round under a contract with ``secure_aggregation: required`` is

    ready       a setup whose members' keys cover the round (`setups`)
    contribute  masked vectors, added up as they arrive (`sums`); `broker.federation.collecting` asks
    confirm     at least t members sign the one set of vectors that may be opened
    unmask      at least t members give one share for each peer; from here on the round is not asked again
    open        masks come off the sum; counts, norm and transcript are checked (`rounds`)

Modules are imported by name: `files` what a restart finds, `vectors` masked vectors for auditors, `asking`
exchanges that end with enough good answers.
"""
