# SPDX-License-Identifier: Apache-2.0
"""``act-small/1`` in numpy: queries that are decoded from a state token, frame by frame.

memory  = [tanh(stem x), register]
queries = learned
per layer:  q += among(norm q);  q += attention(norm q, memory);  q += narrow(relu(widen(norm q)))
outputs = head(norm q), query by query
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Decoder"]

Array64 = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating[Any]]
_EPSILON: Final = 1e-5  # of torch's LayerNorm
_AT_ONCE: Final = 1024  # frames: bounds memory


class Decoder:
    """The model of tensors by name."""

    def __init__(self, tensors: dict[str, Array64], *, heads: int, layers: int) -> None:
        turned = {name: np.ascontiguousarray(one.T) for name, one in tensors.items() if one.ndim > 1}
        self._tensors = tensors | {f"{name} turned": one for name, one in turned.items()}
        self._heads = heads
        self._layers = layers

    def __call__(self, inputs: AnyArray) -> Array64:
        """``[..., d]`` to ``[..., H * a]``."""
        *lead, size = inputs.shape
        rows = np.asarray(inputs, dtype=np.float64).reshape(-1, size)
        parts = [self._frames(rows[at : at + _AT_ONCE]) for at in range(0, len(rows), _AT_ONCE)]
        chunk = (len(self._tensors["trunk.learned.weight"]) - 1) * len(self._tensors["head.bias"])
        return np.concatenate(parts).reshape(*lead, chunk) if parts else np.zeros((*lead, chunk))

    def _frames(self, rows: Array64) -> Array64:
        learned = self._tensors["trunk.learned.weight"]
        token = np.tanh(self._linear("stem", rows))
        memory = np.stack([token, np.broadcast_to(learned[-1], token.shape)], axis=1)
        queries = np.broadcast_to(learned[:-1], (len(rows), *learned[:-1].shape))
        for number in range(self._layers):
            queries = self._layer(f"trunk.layers.{number}", queries, memory)
        outputs = self._linear("head", self._norm("trunk.norm", queries))
        return outputs.reshape(len(rows), -1)

    def _layer(self, at: str, queries: Array64, memory: Array64) -> Array64:
        normed = self._norm(f"{at}.norm_among", queries)
        asked, offered, held = np.split(self._linear(f"{at}.among.project", normed), 3, axis=-1)
        queries = queries + self._linear(f"{at}.among.merge", self._attend(asked, offered, held))
        asked = self._linear(f"{at}.memory.ask", self._norm(f"{at}.norm_memory", queries))
        offered, held = np.split(self._linear(f"{at}.memory.offer", memory), 2, axis=-1)
        queries = queries + self._linear(f"{at}.memory.merge", self._attend(asked, offered, held))
        wide = np.maximum(self._linear(f"{at}.widen", self._norm(f"{at}.norm_forward", queries)), 0.0)
        return queries + self._linear(f"{at}.narrow", wide)

    def _attend(self, asked: Array64, offered: Array64, held: Array64) -> Array64:
        """Scaled dot-product attention, head by head, ``[N, tokens, width]``."""
        query, key, value = (self._by_head(one) for one in (asked, offered, held))
        scores = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
        scores -= scores.max(axis=-1, keepdims=True)
        shares = np.exp(scores)
        mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ value
        merged: Array64 = mixed.swapaxes(1, 2).reshape(asked.shape)
        return merged

    def _by_head(self, tokens: Array64) -> Array64:
        frames, count, width = tokens.shape
        return tokens.reshape(frames, count, self._heads, width // self._heads).swapaxes(1, 2)

    def _linear(self, name: str, values: Array64) -> Array64:
        rows = values.reshape(-1, values.shape[-1])
        found: Array64 = rows @ self._tensors[f"{name}.weight turned"] + self._tensors[f"{name}.bias"]
        return found.reshape(*values.shape[:-1], -1)

    def _norm(self, name: str, values: Array64) -> Array64:
        centred = values - values.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
        scaled: Array64 = centred / spread * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]
        return scaled
