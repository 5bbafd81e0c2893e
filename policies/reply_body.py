# SPDX-License-Identifier: Apache-2.0
"""What a reply says beside its vector: a closed list, kept by the node on its way out and by the broker.

- Nothing but the (noised) update, the node's signed envelopes and the decision that they rest on leaves. A
  count of examples, a loss, a metric, a norm or a duration is a fact about private data that no noise covers.
- Envelopes are closed by the log's own schemas; the decision by the contract language. So the list here is
  short: a key that is not on it has no business in a reply, whatever it is called.

    check_reply_body(ExchangeType.CONTRIBUTE, {"decision": …, "envelopes": […]})      # returns
    check_reply_body(ExchangeType.CONTRIBUTE, {"num_examples": 250})                  # ReplyFieldError
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from policies.exchange import ExchangeType
from policies.privacy.errors import ReplyFieldError

if TYPE_CHECKING:
    from policies.encoding import Json

__all__ = ["REPLY_KEYS", "check_reply_body"]

REPLY_KEYS: Final[Mapping[ExchangeType, frozenset[str]]] = {
    ExchangeType.PING: frozenset({"envelopes"}),
    ExchangeType.CONTRIBUTE: frozenset({"decision", "envelopes"}),
    ExchangeType.JUDGE: frozenset({"decision", "envelopes"}),
    ExchangeType.SA_ADVERTISE: frozenset({"answer"}),
    ExchangeType.SA_SHARE: frozenset({"answer"}),
    ExchangeType.SA_OPEN: frozenset({"answer"}),
    ExchangeType.SA_CONTRIBUTE: frozenset({"answer", "decision", "envelopes"}),
    ExchangeType.SA_CONFIRM: frozenset({"answer"}),
    ExchangeType.SA_UNMASK: frozenset({"answer"}),
    ExchangeType.SA_JUDGE: frozenset({"answer", "envelopes"}),
}
"""Keys that the body of a reply may have, per type."""
_DECISION: Final = frozenset({"request", "salt", "state"})
_TELLING: Final = frozenset(
    {
        *("accuracy", "batch_size", "clipped", "count", "counts", "duration", "duration_ms", "elapsed_ms"),
        *("epochs", "episodes", "examples", "frames", "grad_norm", "gradient_norm", "loss", "losses"),
        *("metric", "metrics", "norm", "norms", "num_examples", "num_samples", "samples", "time_ms"),
        *("train_loss", "units", "weight", "weights"),
    }
)


def check_reply_body(kind: ExchangeType, body: Mapping[str, Json]) -> None:
    """Returns if a reply may leave with this body.

    Raises:
        ReplyFieldError: A key that is not of the list; names that would tell about data are called that.
    """
    for key in sorted(set(body) - REPLY_KEYS[kind]):
        raise _refused(key, "a fact about data" if key.lower() in _TELLING else "an unknown key")
    decision = body.get("decision", {})
    if not isinstance(decision, Mapping) or not set(decision) <= _DECISION:
        raise _refused("decision", "another than request, salt and state")
    if _floats(body):
        raise _refused("body", "a number with a point")


def _floats(value: Json) -> bool:
    if isinstance(value, Mapping):
        return any(_floats(one) for one in value.values())
    return isinstance(value, float) or (isinstance(value, list | tuple) and any(map(_floats, value)))


def _refused(key: str, found: str) -> ReplyFieldError:
    return ReplyFieldError(
        need="a reply of update, envelopes and decision",
        found=f"{ascii(key)[:60]}: {found}",
        remedy="update the node; nothing of this reply leaves",
    )
