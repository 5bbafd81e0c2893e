# SPDX-License-Identifier: Apache-2.0
"""The server's step once more, with the standard library alone: the same bits as `policies.server_step`.

Every operation is one of IEEE 754 in double precision, in the order in which numpy does it there; weights are
rounded to float32 after each step. A recipe is JSON that was not checked: what it lacks raises `UnfitError`.

    server = Server.of(recipe["server"])
    model = Model.first(first_bytes, server)
    model = server.step(model, opened_sum_bytes, kappa)        # 0, 1, …: the model counts
    model.digest, server.released(model)
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Model", "Server", "UnfitError", "float32_bytes"]

Json = Any
State = Mapping[str, Sequence[float]]
_WIDTH: Final = 4
_BIG_ENDIAN: Final = sys.byteorder == "big"
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)


class UnfitError(Exception):
    """The recipe has no such server: AUD-051 says what is wrong with it."""


def float32_bytes(values: Iterable[float]) -> bytes:
    """Values rounded to float32, little-endian."""
    narrow = array("f", values)
    if _BIG_ENDIAN:
        narrow.byteswap()
    return narrow.tobytes()


def _read(kind: str, data: bytes | memoryview) -> array[Any]:
    found = array(kind)
    found.frombytes(data)
    if _BIG_ENDIAN:
        found.byteswap()
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """Weights (float32 values) with what the server's next step goes on from.

    Attributes:
        weights: ``[d]``.
        state: As `policies.server_step` has it.
        steps: Done before.
    """

    weights: Sequence[float] = field(repr=False)
    state: State = field(repr=False)
    steps: int = 0

    @classmethod
    def first(cls, data: bytes | memoryview, server: Server) -> Model:
        """Of a model's bytes, before the first step.

        Raises:
            UnfitError: Not whole float32 values.
        """
        if len(data) % _WIDTH:
            raise UnfitError
        weights = array("d", _read("f", data))
        return cls(weights=weights, state=server.initial(weights))

    @property
    def digest(self) -> str:
        """``sha256:…`` of its bytes."""
        return digest(float32_bytes(self.weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server's block of a recipe.

    Attributes:
        kind: ``mean``, ``momentum`` or ``adam``.
        descends: Whether the mean is a gradient.
        numbers: By name.
        rounds: Over which the rate falls.
    """

    kind: str
    descends: bool
    numbers: Mapping[str, float]
    rounds: int

    @classmethod
    def of(cls, block: Json) -> Server:
        """Of a recipe's JSON.

        Raises:
            UnfitError: Another block.
        """
        try:
            names, kind = _NUMBERS[block["kind"]], str(block["kind"])
            numbers = {name: float(block[name]) for name in names}
            gradient = kind == "adam" and {"gradient": True, "difference": False}[block["update"]]
            rounds = int(block["steps"]) if kind == "adam" else 1
        except _MALFORMED as error:
            raise UnfitError from error
        if rounds < 1 or not all(math.isfinite(one) for one in numbers.values()):
            raise UnfitError
        return cls(kind=kind, descends=gradient, numbers=numbers, rounds=rounds)

    @property
    def forgets(self) -> bool:
        """Whether the next step needs nothing but the model."""
        return self.kind == "mean"

    def initial(self, weights: Sequence[float]) -> State:
        """State before the first step."""
        zeros = array("d", bytes(8 * len(weights)))
        if self.kind == "momentum":
            return {"velocity": zeros}
        return {"first": zeros, "second": zeros, "average": weights} if self.kind == "adam" else {}

    def step(self, model: Model, opened: bytes | memoryview, kappa: float) -> Model:
        """The model that an opened sum gives.

        Args:
            model: The round's base model.
            opened: The sum's bytes, little-endian 32-bit integers.
            kappa: What one step of the sum is worth (`policies.secagg.terms.Terms.kappa`).

        Raises:
            UnfitError: Numbers that no server computes with.
        """
        mean = [value * kappa for value in _read("i", opened)]
        if len(mean) != len(model.weights):
            raise UnfitError
        try:
            weights, state = _STEPS[self.kind](self, model, mean)
        except ArithmeticError as error:
            raise UnfitError from error
        return Model(weights=weights, state=state, steps=model.steps + 1)

    def released(self, model: Model) -> str:
        """Digest of the model that is judged and released."""
        return model.digest if self.kind != "adam" else digest(float32_bytes(model.state["average"]))


def _narrow(values: Iterable[float]) -> Sequence[float]:
    """Rounded to float32."""
    return array("d", array("f", values))


def _mean(_server: Server, model: Model, mean: Sequence[float]) -> tuple[Sequence[float], State]:
    return _narrow(base + one for base, one in zip(model.weights, mean, strict=True)), {}


def _momentum(server: Server, model: Model, mean: Sequence[float]) -> tuple[Sequence[float], State]:
    decay, rate = server.numbers["decay"], server.numbers["rate"]
    old = model.state["velocity"]
    velocity = array("d", [decay * before + one for before, one in zip(old, mean, strict=True)])
    weights = _narrow(base + rate * one for base, one in zip(model.weights, velocity, strict=True))
    return weights, {"velocity": velocity}


def _adam(server: Server, model: Model, mean: Sequence[float]) -> tuple[Sequence[float], State]:
    at, state = server.numbers, model.state
    beta1, beta2, epsilon, ema = at["beta1"], at["beta2"], at["epsilon"], at["average"]
    new1, new2, new = 1 - beta1, 1 - beta2, 1 - ema
    rate = at["rate"] * (1 - at["decay"] * (min(model.steps, server.rounds) / server.rounds))
    slope = mean if server.descends else [-one for one in mean]
    first = array("d", [beta1 * old + new1 * one for old, one in zip(state["first"], slope, strict=True)])
    second = array(
        "d", [beta2 * old + new2 * one * one for old, one in zip(state["second"], slope, strict=True)]
    )
    fix1, fix2, root = 1 - _power(beta1, model.steps + 1), 1 - _power(beta2, model.steps + 1), math.sqrt
    weights = _narrow(
        base - rate * (one / fix1) / (root(two / fix2) + epsilon)
        for base, one, two in zip(model.weights, first, second, strict=True)
    )
    old_average = state["average"]
    average = array("d", [ema * old + new * one for old, one in zip(old_average, weights, strict=True)])
    return weights, {"first": first, "second": second, "average": average}


def _power(base: float, exponent: int) -> float:
    return math.prod(repeat(base, exponent))  # as `policies.server_step` does


_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "mean": (),
    "momentum": ("decay", "rate"),
    "adam": ("rate", "decay", "beta1", "beta2", "epsilon", "average"),
}
_STEPS: Final[Mapping[str, Callable[[Server, Model, Sequence[float]], tuple[Sequence[float], State]]]] = {
    "mean": _mean,
    "momentum": _momentum,
    "adam": _adam,
}
