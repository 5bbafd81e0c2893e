# SPDX-License-Identifier: Apache-2.0
"""Checks of the port: our broker answers there, and Flower's other APIs do not.

The connection goes to the address that the broker listens on, and trusts one certificate, the broker's own.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx

from broker.doctor.findings import FailedError
from broker.remote import leaf_of, pinned
from policies.errors import IriaiError
from policies.identity import parse_key
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.settings import Settings

__all__ = ["Answered", "Ask", "answers", "asking", "flower"]

_TIMEOUT_S: Final = 3.0
_ABOUT: Final = "/api/v1/broker"
_TYPE: Final = "application/vnd.iriai.broker.v1+json"
_FLOWER: Final = (
    "/v1",
    "/v1/control/start-run",
    "/v1/runtime/pull-messages",
    "/v1/serverappio/pull-messages",
    "/v1/clientappio/pull-message",
    "/v1/fleets/register",
)
"""Paths below Flower's own prefix that are none of the nine of the fleet."""


class Answered(NamedTuple):
    """Status and body of an answer."""

    status: int
    body: bytes


if TYPE_CHECKING:
    Ask = Callable[[str, str], Answered]


def asking(settings: Settings) -> Ask:
    """Asks the port of this broker: method and path to what was answered."""
    host = settings.listen_host
    try:
        if ipaddress.ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
    except ValueError:
        pass
    base = (
        f"https://[{host}]:{settings.listen_port}"
        if ":" in host
        else f"https://{host}:{settings.listen_port}"
    )

    def ask(method: str, path: str) -> Answered:
        context = pinned(leaf_of(settings.tls_chain.read_text("ascii")))
        context.check_hostname = False  # the one certificate is named whole
        try:
            with httpx.Client(verify=context, timeout=_TIMEOUT_S, trust_env=False) as client:
                response = client.request(method, base + path)
        except httpx.HTTPError as error:
            raise FailedError(
                f"nothing that we know answers at {base}: {type(error).__name__}",
                "start it with iriai-broker serve; if it serves, see listen_host, listen_port and tls.pem",
            ) from error
        return Answered(response.status_code, response.content)

    return ask


def answers(settings: Settings, ask: Ask) -> str:
    """This broker answers: what it says of itself is signed by its own key and names this log."""
    found = ask("GET", _ABOUT)
    remedy = "another program has the port, or an older broker: stop it and start this one"
    try:
        envelope = Envelope.from_bytes(found.body)
        said = envelope.open_as(_TYPE, parse_key(str(_said_key(envelope))))
    except (IriaiError, ValueError, KeyError, TypeError) as error:
        raise FailedError(f"HTTP {found.status} and no broker's word", remedy) from error
    if said["origin"] != settings.origin:
        raise FailedError(f"the broker of {said['origin']}", remedy)
    return f"{said['url']} answers, version {said['version']}"


def _said_key(envelope: Envelope) -> object:
    from policies.encoding import parse

    return parse(envelope.payload)["broker_key"]


def flower(ask: Ask) -> str:
    """Nothing of Flower's Control and Runtime APIs is reachable through the port."""
    for path in _FLOWER:
        for method in ("GET", "POST"):
            found = ask(method, path)
            if found.status != httpx.codes.NOT_FOUND:
                raise FailedError(
                    f"{method} {path} gives {found.status}",
                    "let nothing but iriai-broker listen on the port, and no proxy add paths below /v1",
                )
    return "only the nine paths of the fleet are there"
