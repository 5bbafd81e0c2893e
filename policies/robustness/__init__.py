# SPDX-License-Identifier: Apache-2.0
"""What can be done against bad updates when only sums are visible: norms, votes, a search for who to look at.

- `norms`: an opened mean beyond what honest members could have made. Needs NumPy.
- `votes`: leave-one-team-out choice; accept or reject; rejections in a row. Standard library only.
- `offenders`: the member of every failed team. Standard library only.
"""
