# SPDX-License-Identifier: Apache-2.0
"""Who is summed with whom, and which sums may be open together: the ground under scores and team votes.

- `partition`: teams that nobody chooses, from nonces that members committed to. Standard library only.
- `rank_rule`: whether one more opened sum would give away a sum over too few groups. Standard library only.
"""

from policies.contribution.partition import Draw, chain, draw, link_holds, partition_seed, teams_of
from policies.contribution.rank_rule import Finding, check

__all__ = ["Draw", "Finding", "chain", "check", "draw", "link_holds", "partition_seed", "teams_of"]
