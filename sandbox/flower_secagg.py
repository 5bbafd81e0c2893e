# SPDX-License-Identifier: Apache-2.0
"""Flower's own secure aggregation on one client, driven in this process: the yardstick of `bench secagg`.

`FlowerClients` takes the installed ``secaggplus_mod`` through the four stages of a round, with the settings
that Flower's workflow has by default. The app that it wraps returns a vector that lies ready, so what the
first client does is Flower's alone: keys, shares, decrypting, quantising, masks, arrays as bytes, and which
shares it shows. Nothing of it is used anywhere else.

    clients = FlowerClients(parties=10, threshold=7)
    clients.exchange_keys()
    clients.mask(clients.trained(vector))
    clients.unmask(missing=1)
    clients.cpu_s, clients.sent             # of the first client
"""

from __future__ import annotations

import importlib
import os
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FlowerClients"]

_CLIPPING: Final = 8.0
_TARGET: Final = 1 << 22
_MODULUS: Final = 1 << 32
_EXAMPLES: Final = 1_000
_RECORD: Final = "secaggplus_configs"


class FlowerClients:
    """Clients of one round that all share keys with each other.

    Args:
        parties: How many.
        threshold: Shares that open a secret.

    Attributes:
        cpu_s: CPU seconds of the first client so far.
        sent: Bytes in its replies so far.
    """

    def __init__(self, *, parties: int, threshold: int) -> None:
        os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
        self._names, self._threshold = _Names(), threshold
        self._contexts = {at: self._names.context(at) for at in range(1, parties + 1)}
        self._sealed: dict[str, list[Any]] = {}
        self.cpu_s, self.sent = 0.0, 0

    def exchange_keys(self) -> None:
        """The stages before training."""
        settings = {
            "sample_num": len(self._contexts),
            "share_num": len(self._contexts),
            "threshold": self._threshold,
            "clipping_range": _CLIPPING,
            "target_range": _TARGET,
            "mod_range": _MODULUS,
            "max_weight": float(_EXAMPLES),
        }
        keys = {at: self._ask(at, "setup", settings) for at in self._contexts}
        shown = {str(at): [one["pk1"], one["pk2"]] for at, one in keys.items()}
        dealt = {at: self._ask(at, "share_keys", shown) for at in self._contexts}
        sealed = {
            at: dict(zip(one["dsts"], one["ctxts"], strict=True))[1] for at, one in dealt.items() if at != 1
        }
        self._sealed = {"ctxts": list(sealed.values()), "srcs": list(sealed)}

    def trained(self, vector: NDArray[np.float32]) -> Any:  # noqa: ANN401  Flower's
        """What an app returns that trained this vector."""
        return self._names.trained(vector, _EXAMPLES)

    def mask(self, content: Any) -> None:  # noqa: ANN401  Flower's
        """Masks what `trained` gave."""
        self._ask(1, "collect_masked_vectors", self._sealed, content)

    def unmask(self, *, missing: int) -> None:
        """Shows shares of all clients, the last ones being gone."""
        names = list(self._contexts)
        here = names[: len(names) - missing]
        self._ask(1, "unmask", {"active_nids": here, "dead_nids": names[len(here) :]})

    def _ask(self, at: int, stage: str, facts: Mapping[str, Any], content: Any = None) -> Mapping[str, Any]:  # noqa: ANN401  Flower's
        message, context = self._names.message(at, {"stage": stage, **facts}), self._contexts[at]
        began_s = time.process_time()
        reply = self._names.mod(message, context, lambda asked, _: self._names.reply(content, asked))
        took_s = time.process_time() - began_s
        found: Mapping[str, Any] = reply.content.config_records[_RECORD]
        if at == 1:
            self.cpu_s += took_s
            self.sent += _bytes_in(found)
        return found


def _bytes_in(found: Mapping[str, Any]) -> int:
    values = [one for value in found.values() for one in (value if isinstance(value, list) else [value])]
    return sum(len(one) for one in values if isinstance(one, bytes))


class _Names:
    """Names of Flower that are needed, loaded when the benchmark runs."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Flower's, while it loads
            self._app = importlib.import_module("flwr.app")
            self._common = importlib.import_module("flwr.common")
            self._compat = importlib.import_module("flwr.compat.common.recorddict_compat")
            self._make = importlib.import_module("flwr.app.message").make_message
            self._metadata = importlib.import_module("flwr.app.metadata").Metadata
            folder = "flwr.client.mod.secure_aggregation.secaggplus_mod"
            self.mod = importlib.import_module(folder).secaggplus_mod

    def context(self, at: int) -> Any:  # noqa: ANN401
        return self._app.Context(
            run_id=1, node_id=at, node_config={}, state=self._app.RecordDict(), run_config={}
        )

    def message(self, at: int, facts: Mapping[str, Any]) -> Any:  # noqa: ANN401
        metadata = self._metadata(
            run_id=1,
            message_id="asked",
            src_node_id=0,
            dst_node_id=at,
            reply_to_message_id="",
            group_id="",
            created_at=0.0,
            ttl=1e12,
            message_type="train",
        )
        record = self._app.ConfigRecord(dict(facts))
        return self._make(metadata=metadata, content=self._app.RecordDict({_RECORD: record}))

    def reply(self, content: Any, asked: Any) -> Any:  # noqa: ANN401
        return self._app.Message(content, reply_to=asked)

    def trained(self, vector: NDArray[np.float32], examples: int) -> Any:  # noqa: ANN401
        fit = self._common.FitRes(
            status=self._common.Status(self._common.Code.OK, ""),
            parameters=self._common.ndarrays_to_parameters([vector]),
            num_examples=examples,
            metrics={},
        )
        return self._compat.fitres_to_recorddict(fit, keep_input=False)
