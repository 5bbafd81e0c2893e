# SPDX-License-Identifier: Apache-2.0
"""Messages of the Dataspace Protocol 2025-1: how they are written, and the strict reader of a consumer's.

- Written are the shapes of the official schemas, in compact JSON-LD under the protocol's own context; what
  the schemas call an optional array is left out rather than sent empty.
- `read_json` takes bytes of another party: bounded, UTF-8, no key twice, no number with a fraction (the
  schemas have none; a decimal is an object with ``@value``).
- The readers check what the protocol is about and name the place. What a message says beyond that (JSON-LD
  lets it) means nothing to us and is not looked at.
- An offer is kept as it was sent: whether it is ours is decided by comparing it with ours
  (`broker.dataspace.facade`), never by interpreting it.

    message = read_request(read_json(body))
    answer = negotiation("iriai:neg:…", message.consumer_pid, "REQUESTED")
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.contract.errors import DspMessageError
from policies.encoding import check_profile
from policies.errors import EncodingError
from policies.limits import DSP_CONTEXTS, DSP_ID_CHARS, DSP_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ACCEPTED",
    "CONTEXT",
    "FINALIZED",
    "VERSION",
    "Heard",
    "Request",
    "agreement_message",
    "catalog",
    "catalog_error",
    "event_message",
    "malformed",
    "negotiation",
    "negotiation_error",
    "offer_message",
    "read_catalog_request",
    "read_event",
    "read_json",
    "read_request",
    "read_termination",
    "read_verification",
    "termination_message",
    "versions",
    "with_context",
]

Json = Any  # a JSON value

CONTEXT: Final = "https://w3id.org/dspace/2025/1/context.jsonld"
VERSION: Final = "2025-1"
ACCEPTED: Final = "ACCEPTED"
FINALIZED: Final = "FINALIZED"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._~%#?/@!$&'()*+,;=-]*")
_RULES: Final = ("permission", "prohibition", "obligation")


# --- written ---


def with_context(kind: str | None, fields: Mapping[str, Json]) -> dict[str, Json]:
    """A message: the protocol's context, its type, its fields; None among them is left out."""
    head: dict[str, Json] = {"@context": [CONTEXT]}
    if kind is not None:
        head["@type"] = kind
    return head | {name: value for name, value in fields.items() if value is not None}


def _between(kind: str, provider_pid: str, consumer_pid: str, **fields: Json) -> dict[str, Json]:
    return with_context(kind, {"providerPid": provider_pid, "consumerPid": consumer_pid, **fields})


def offer_message(provider_pid: str, consumer_pid: str, offer: Json) -> dict[str, Json]:
    """The provider's offer, in a negotiation that the consumer began."""
    return _between("ContractOfferMessage", provider_pid, consumer_pid, offer=offer)


def agreement_message(provider_pid: str, consumer_pid: str, agreement: Json) -> dict[str, Json]:
    """The provider's agreement."""
    return _between("ContractAgreementMessage", provider_pid, consumer_pid, agreement=agreement)


def event_message(provider_pid: str, consumer_pid: str, event: str) -> dict[str, Json]:
    """``ACCEPTED`` by the consumer, ``FINALIZED`` by the provider."""
    return _between("ContractNegotiationEventMessage", provider_pid, consumer_pid, eventType=event)


def termination_message(provider_pid: str, consumer_pid: str, *, code: str, reason: str) -> dict[str, Json]:
    """The end of a negotiation, with its reason."""
    return _between(
        "ContractNegotiationTerminationMessage", provider_pid, consumer_pid, code=code, reason=[reason]
    )


def negotiation(provider_pid: str, consumer_pid: str, state: str) -> dict[str, Json]:
    """Where a negotiation stands."""
    return _between("ContractNegotiation", provider_pid, consumer_pid, state=state)


def negotiation_error(
    provider_pid: str, consumer_pid: str, *, code: str, reason: list[str]
) -> dict[str, Json]:
    """Why a message of a negotiation was refused."""
    return _between("ContractNegotiationError", provider_pid, consumer_pid, code=code, reason=reason)


def catalog_error(*, code: str, reason: list[str]) -> dict[str, Json]:
    """Why a question to the catalogue was refused."""
    return with_context("CatalogError", {"code": code, "reason": reason})


def catalog(
    *, catalog_id: str, participant: str, service: Mapping[str, Json], datasets: list[dict[str, Json]]
) -> dict[str, Json]:
    """The catalogue of a participant; without data sets, the key is left out."""
    return with_context(
        "Catalog",
        {
            "@id": catalog_id,
            "participantId": participant,
            "service": [dict(service)],
            "dataset": datasets or None,
        },
    )


def versions(path: str) -> dict[str, Json]:
    """The versions that are spoken here, and how a caller says who it is."""
    auth = {"protocol": "Bearer", "version": "RFC 6750"}
    return {"protocolVersions": [{"version": VERSION, "path": path, "binding": "HTTPS", "auth": auth}]}


# --- read ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What every message of a running negotiation names."""

    provider_pid: str
    consumer_pid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A consumer's request: the first one names its callback address, a counter-offer the negotiation."""

    consumer_pid: str
    provider_pid: str | None
    callback: str | None
    offer_id: str
    offer: dict[str, Json]


def malformed(need: str, found: object) -> DspMessageError:
    """The error of a message of another shape."""
    return DspMessageError(
        need=need, found=ascii(found)[:120], remedy="send a message of the Dataspace Protocol 2025-1"
    )


def read_json(data: bytes, *, most: int = DSP_MESSAGE_BYTES) -> Json:
    """The JSON value of another party's bytes.

    Raises:
        DspMessageError: Too large, not UTF-8 JSON, a key twice, a number with a fraction, too deep, text that
            has two spellings.
    """
    if len(data) > most:
        raise malformed(f"at most {most} bytes", f"{len(data)} bytes")
    try:
        tree = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_each_key_once,
            parse_float=_no_fraction,
            parse_constant=_no_fraction,
        )
        check_profile(tree)
    except EncodingError as error:
        raise malformed(error.need, error.found) from error
    except (ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are both a ValueError
        raise malformed("UTF-8 JSON", type(error).__name__) from error
    return tree


def _each_key_once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise malformed("each key once", sorted(name for name, _ in pairs)[:10])
    return found


def _no_fraction(text: str) -> Json:
    raise malformed("decimals as objects with @value", text[:40])


def _message(tree: Json, kind: str) -> dict[str, Json]:
    if not isinstance(tree, dict):
        raise malformed("an object", type(tree).__name__)
    if tree.get("@type") != kind:
        raise malformed(f"@type {kind}", tree.get("@type"))
    contexts = tree.get("@context")
    named = isinstance(contexts, list) and CONTEXT in contexts and len(contexts) <= DSP_CONTEXTS
    if not named or not all(isinstance(one, str) for one in tree["@context"]):
        raise malformed(f"@context: a list of at most {DSP_CONTEXTS} addresses with {CONTEXT}", contexts)
    return tree


def _text(tree: Mapping[str, Json], name: str, *, at: str = "") -> str:
    value = tree.get(name)
    if not isinstance(value, str) or len(value) > DSP_ID_CHARS or _ID.fullmatch(value) is None:
        raise malformed(f"{at}{name}: an id of at most {DSP_ID_CHARS} plain characters", value)
    return value


def read_request(tree: Json) -> Request:
    """A ContractRequestMessage, the first one or a counter-offer.

    Raises:
        DspMessageError: Something else; the place is named.
    """
    message = _message(tree, "ContractRequestMessage")
    provider_pid = _text(message, "providerPid") if "providerPid" in message else None
    callback = message.get("callbackAddress")
    if (provider_pid is None) == (callback is None):
        raise malformed("one of callbackAddress and providerPid", "both" if provider_pid else "neither")
    offer = _offer(message.get("offer"))
    return Request(
        consumer_pid=_text(message, "consumerPid"),
        provider_pid=provider_pid,
        callback=None if callback is None else _text(message, "callbackAddress"),
        offer_id=_text(offer, "@id", at="offer."),
        offer=offer,
    )


def _offer(tree: Json) -> dict[str, Json]:
    if not isinstance(tree, dict) or tree.get("@type") != "Offer":
        raise malformed("offer: an object of @type Offer", tree)
    if not any(name in tree for name in _RULES[:2]):
        raise malformed("offer: a permission or a prohibition", sorted(tree)[:10])
    for name in _RULES:
        rules = tree.get(name, [{"action": ""}])
        listed = isinstance(rules, list) and rules and all(isinstance(one, dict) for one in rules)
        if not listed or not all(isinstance(one.get("action"), str) for one in rules):
            raise malformed(f"offer.{name}: at least one rule, each with an action", rules)
    return tree


def read_event(tree: Json) -> tuple[Heard, str]:
    """A ContractNegotiationEventMessage and its event.

    Raises:
        DspMessageError: Something else; the place is named.
    """
    message = _message(tree, "ContractNegotiationEventMessage")
    event = message.get("eventType")
    if event not in (ACCEPTED, FINALIZED):  # a tuple: a message may hold what cannot be hashed
        raise malformed(f"eventType: {ACCEPTED} or {FINALIZED}", event)
    return _heard(message), str(event)


def read_verification(tree: Json) -> Heard:
    """A ContractAgreementVerificationMessage.

    Raises:
        DspMessageError: Something else; the place is named.
    """
    return _heard(_message(tree, "ContractAgreementVerificationMessage"))


def read_termination(tree: Json) -> Heard:
    """A ContractNegotiationTerminationMessage; its reason stays in the stored bytes.

    Raises:
        DspMessageError: Something else; the place is named.
    """
    message = _message(tree, "ContractNegotiationTerminationMessage")
    if not isinstance(message.get("code", ""), str):
        raise malformed("code: text", message["code"])
    if "reason" in message and not (isinstance(message["reason"], list) and message["reason"]):
        raise malformed("reason: at least one", message["reason"])
    return _heard(message)


def _heard(message: Mapping[str, Json]) -> Heard:
    return Heard(provider_pid=_text(message, "providerPid"), consumer_pid=_text(message, "consumerPid"))


def read_catalog_request(tree: Json) -> None:
    """A CatalogRequestMessage; a filter is a query language that we do not have.

    Raises:
        DspMessageError: Something else, or a filter with something in it.
    """
    message = _message(tree, "CatalogRequestMessage")
    if message.get("filter", []) != []:
        raise malformed("filter: none, or an empty one", message["filter"])
