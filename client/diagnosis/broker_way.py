# SPDX-License-Identifier: Apache-2.0
"""The way to the broker: its name, out of this site, its certificate, both clocks, what it says of this node.

Each step is looked at only if the one before holds; all are bounded by `PATIENCE_S`. Proxies are not used:
the node trusts one certificate, and a proxy that opens TLS would show another. One that is set in the
environment is named, because somebody expects it to be used.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from client.diagnosis.findings import Finding, SkippedError, failed
from client.diagnosis.names import Names, SystemNames, named
from client.errors import PeerUnreachableError
from client.membership import open_member, pinned_broker
from client.pin import certificate_of
from client.settings import load_settings
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from client.settings import Home
    from policies.ports import Clock, Entropy

__all__ = ["PATIENCE_S", "Way"]

PATIENCE_S: Final = 2.0  # of each connection: all checks together are to end within 5 seconds
_CLOCK_S: Final = 20.0  # requests are refused at 30
_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_SEEN_MS: Final = 120_000


@dataclass(slots=True, kw_only=True)
class Way:
    """One look along the way; what a step learns is for the next one.

    Attributes:
        home: The node's folder.
        clock: Of this machine.
        entropy: Of nonces.
        transport: Of httpx, for an application in the same process: there is no way out to look at then.
        environment: Where proxies are set.
        names: Name server and network.
    """

    home: Home
    clock: Clock
    entropy: Entropy
    transport: httpx.BaseTransport | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    names: Names = field(default_factory=SystemNames)
    _blocked: str = ""
    _drift_s: float | None = None
    _answer: Mapping[str, object] = field(default_factory=dict)

    def pinned(self) -> str:
        """Whose broker is pinned."""
        return pinned_broker(self.home).url

    def name(self) -> str | Finding:
        """Whether the broker's name means an address that this machine can reach."""
        host, port = self._place()
        if self.transport is not None:
            return "in this process"
        try:
            return named(host, port, names=self.names, clock=self.clock)
        except PeerUnreachableError:
            self._blocked = f"the name {host} leads nowhere here"
            raise

    def out(self) -> str | Finding:
        """Whether this machine reaches the broker's port, and how long that takes."""
        self._require_way()
        host, port = self._place()
        proxies = sorted({name for name in _PROXIES if self.environment.get(name)})
        if self.transport is not None:
            return "in this process"
        try:
            with socket.create_connection((host, port), timeout=PATIENCE_S):
                pass
        except OSError as error:
            self._blocked = f"no way out to {host}:{port}"
            raise PeerUnreachableError(
                need=f"a way out to {host}:{port}",
                found=error.strerror or type(error).__name__,
                remedy="let this machine open connections to it, without a proxy between; is the broker up?",
            ) from error
        words = f"{host}:{port} answers"
        if proxies:
            return Finding(
                found=f"{words}; {' '.join(proxies)} is set and not used",
                fix="nothing, if the direct way is meant; the node never uses a proxy",
            )
        return words

    def certificate(self) -> str:
        """Whether the broker shows the one certificate that the invitation pinned."""
        self._require_way()
        if self.transport is not None:
            return "in this process"
        host, port = self._place()
        try:
            certificate_of(host, port, tls_sha256=pinned_broker(self.home).tls_sha256, timeout_s=PATIENCE_S)
        except Exception:
            self._blocked = "another certificate than the pinned one"
            raise
        return f"sha256:{pinned_broker(self.home).tls_sha256[:16]}…, the pinned one"

    def reach(self) -> str:
        """Whether the broker takes a request that this node signs."""
        self._require_way()
        member = open_member(self.home, clock=self.clock, entropy=self.entropy, transport=self.transport)
        member.client.patience(PATIENCE_S)
        with member.client as client:
            answer = client.get("/membership/me")
            self._drift_s = client.clock_difference_s
        self._answer = answer if isinstance(answer, dict) else {}
        return f"certificate and signature accepted, {self._answer.get('state', 'unknown')}"

    def clocks(self) -> str | Finding:
        """How far this machine's clock is from the broker's.

        Raises:
            DoctorFailedError: So far that requests are refused, or soon will be.
        """
        if self._drift_s is None:
            raise SkippedError("the broker did not answer")
        if abs(self._drift_s) > _CLOCK_S:
            raise failed(
                f"a clock within {_CLOCK_S:.0f} s of the broker's",
                f"{self._drift_s:.0f} s",
                "set this machine's clock (NTP), or have the operator set the broker's",
            )
        return f"{self._drift_s:.0f} s from the broker's"

    def last_seen(self) -> str | Finding:
        """When the broker heard this node's worker last, by its own word."""
        if self._drift_s is None:
            raise SkippedError("the broker did not answer")
        if "seen_ms" not in self._answer:
            raise SkippedError("this broker does not say")
        seen = self._answer["seen_ms"]
        if not isinstance(seen, int):
            return Finding(found="never since the broker started", fix="iriai-node run here")
        age_ms = self.clock.now_ms() - int(1000 * self._drift_s) - seen
        words = f"{max(0, age_ms) // 1000} s ago, at {iso_s(seen)}"
        return Finding(found=words, fix="iriai-node run here") if age_ms > _SEEN_MS else words

    def _place(self) -> tuple[str, int]:
        url = urlsplit(load_settings(self.home).broker_url or pinned_broker(self.home).url)
        return url.hostname or "", url.port or 443

    def _require_way(self) -> None:
        if self._blocked:
            raise SkippedError(self._blocked)
