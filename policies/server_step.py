# SPDX-License-Identifier: Apache-2.0
"""The server optimiser: a pure, elementwise float64 function that nodes and auditors recompute bit for bit.

- Input is the weighted mean of the opened updates. A difference of weights points where the model should go
  and is added (``mean``, ``momentum``, ``adam`` with ``update: difference``); a gradient is descended
  (``adam`` with ``update: gradient``).
- Returned weights hold float32 values (in a float64 array): what travels is exactly what the next step starts
  from.
- ``state`` is a dictionary of float64 arrays of the model's length; write it with each checkpoint.
- For differences the three are those of the literature. With the numbers of Flower's strategies on the right
  both give the same weights, round by round, but for rounding to float32:

      mean                                FedAvg, equal num-examples
      momentum   rate, decay              FedAvgM   server_learning_rate, server_momentum
      adam       rate, beta1, beta2,      FedAdam   eta, beta_1, beta_2,
                 epsilon                            tau = epsilon sqrt(1 - beta2^t) in its t-th step
                 decay 0, average 0                 (it has neither), its server_round counted from 0

  So ``epsilon`` is added to the root of the *corrected* second moment, as in Adam's paper, and tau to the raw
  one; and Flower, whose rounds begin at 1, corrects the first round as if it were the second. Here it is the
  first.

    state = initial_state(weights, recipe.server)
    weights, state = server_step(weights, mean_update, state, recipe.server, step)      # step = 0, 1, …
    model = released_weights(weights, state, recipe.server)
"""

from __future__ import annotations

import hashlib
import math
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from policies.errors import invariant

if TYPE_CHECKING:
    from policies.recipe import ServerAdam, ServerMean, ServerMomentum

__all__ = ["State", "initial_state", "released_weights", "server_step", "state_digest"]

Array = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating[Any]]
State = dict[str, Array]


def _f64(values: AnyArray) -> Array:
    return np.asarray(values, dtype=np.float64)


def _as_float32(weights: Array) -> Array:
    return weights.astype(np.float32).astype(np.float64)


def initial_state(weights: AnyArray, options: ServerMomentum | ServerMean | ServerAdam) -> State:
    """State before step 0."""
    start = _f64(weights)
    if options.kind == "momentum":
        return {"velocity": np.zeros_like(start)}
    if options.kind == "adam":
        return {
            "first": np.zeros_like(start),
            "second": np.zeros_like(start),
            "average": start.copy(),
        }
    return {}


def server_step(
    weights: AnyArray,
    mean_update: AnyArray,
    state: State,
    options: ServerMomentum | ServerMean | ServerAdam,
    step: int,
) -> tuple[Array, State]:
    """One step of the server.

    Args:
        weights: ``[P]``, the round's base model.
        mean_update: ``[P]``, mean of the accepted updates.
        state: From `initial_state` or the step before; not changed.
        options: The recipe's server block.
        step: Number of steps done before this one.

    Returns:
        The next weights ``[P] float64`` (float32 values) and the next state.
    """
    base, update = _f64(weights), _f64(mean_update)
    invariant(base.shape == update.shape and base.ndim == 1, "an update of the model's length")
    if options.kind == "mean":
        return _as_float32(base + update), {}
    if options.kind == "momentum":
        velocity = float(options.decay) * state["velocity"] + update
        return _as_float32(base + float(options.rate) * velocity), {"velocity": velocity}
    return _adam(base, update, state, options, step)


def _adam(base: Array, update: Array, state: State, options: ServerAdam, step: int) -> tuple[Array, State]:
    gradient = -update if options.update == "difference" else update
    beta1, beta2, epsilon = float(options.beta1), float(options.beta2), float(options.epsilon)
    ema = float(options.average)
    done = min(step, options.steps) / options.steps
    rate = float(options.rate) * (1 - float(options.decay) * done)
    first = beta1 * state["first"] + (1 - beta1) * gradient
    second = beta2 * state["second"] + (1 - beta2) * gradient * gradient
    corrected1 = first / (1 - _power(beta1, step + 1))
    corrected2 = second / (1 - _power(beta2, step + 1))
    weights = _as_float32(base - rate * corrected1 / (np.sqrt(corrected2) + epsilon))
    average = ema * state["average"] + (1 - ema) * weights
    return weights, {"first": first, "second": second, "average": average}


def _power(base: float, exponent: int) -> float:
    return math.prod(repeat(base, exponent))  # multiplications only: pow differs between C libraries


def state_digest(state: State, step: int) -> str:
    """``sha256:…`` of what the next step goes on from beside the weights: arrays in order of name, and steps.

    Of a server that remembers nothing it is that of no bytes: such a step does not depend on its number.
    """
    hashed = hashlib.sha256(str(step).encode() if state else b"")
    for name in sorted(state):
        hashed.update(name.encode())
        hashed.update(np.ascontiguousarray(state[name], dtype="<f8").data)
    return f"sha256:{hashed.hexdigest()}"


def released_weights(
    weights: AnyArray, state: State, options: ServerMomentum | ServerMean | ServerAdam
) -> npt.NDArray[np.float32]:
    """The model that is judged and released, ``[P] float32``: Adam's running average, else the last."""
    chosen = state["average"] if options.kind == "adam" else _f64(weights)
    return chosen.astype(np.float32)
