# SPDX-License-Identifier: Apache-2.0
"""The program of a dishonest member: our own node, changed so that its updates are not clipped any more.

``python -m sandbox.attacks.hostile_node --dir D`` runs it with the folder and keys of an enrolled node. It
speaks the protocol to the letter; only the numbers in its updates are a lie: every value as large as the
ring of the sum can hold, whatever training gave.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from client import node
from client.secagg import masking

if TYPE_CHECKING:
    from typing import Any

    from policies.secagg.terms import Terms

__all__ = ["main", "overgrown"]


def overgrown(_update: np.ndarray[Any, Any], terms: Terms) -> np.ndarray[Any, Any]:
    """An update whose every value is as large as the contract's bound for the whole vector."""
    return np.full(terms.dimension, float(terms.norm_max), np.float32)


def main() -> int:
    """The worker of our node, with a clip that clips nothing."""
    setattr(masking, "check_update", overgrown)  # noqa: B010  another module's name: that is the attack
    return node.main()


if __name__ == "__main__":
    sys.exit(main())
