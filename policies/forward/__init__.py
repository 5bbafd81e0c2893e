# SPDX-License-Identifier: Apache-2.0
"""Every architecture in numpy: what a model answers, the same on a node, at the broker and for an auditor.

    forward = Forward(recipe, weights)        # weights: the flat vector of the whole model, [P]
    forward(inputs)                           # [..., d] normalised inputs → [..., H * a] normalised chunks
    frame_losses(recipe, outputs, targets, mask)      # [...], what training descends

    shared_of(recipe, own), private_of(recipe, own)   # what travels, and what never does
    with_shared(recipe, own, shared)                  # the model here, with another trunk
    joined(recipe, shared, private)                   # the model here, of its two parts

No torch, float64 throughout. `split_weights` gives the tensors of the flat vector by name.
"""

from __future__ import annotations

from policies.forward.answers import Forward
from policies.forward.losses import frame_losses
from policies.forward.spans import joined, private_of, shared_of, split_weights, with_shared

__all__ = ["Forward", "frame_losses", "joined", "private_of", "shared_of", "split_weights", "with_shared"]
