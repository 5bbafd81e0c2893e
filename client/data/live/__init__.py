# SPDX-License-Identifier: Apache-2.0
"""Recording from a live source: a table with its signal map beside it, which the ordinary import reads.

- `client.data.live.rows`: reports of single values become rows.
- `client.data.live.recording`: rows become a file that a power cut cannot take.
- `client.data.live.opcua_nodes`: which node is which column, and whether its unit is the map's.
- `client.data.live.opcua`: subscription, loss of connection, stopping.

Only the last two need the extra ``[opcua]``.
"""
