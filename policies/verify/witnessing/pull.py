# SPDX-License-Identifier: Apache-2.0
"""Pull: the witness asks a log for its head, over TLS to the one certificate that the auditor pinned.

1. ask for a head larger than the one that was cosigned last, held by the broker for some seconds; 2. make
   the
consistency proof from the log's tiles; 3. decide and persist (`WitnessStore.step`); 4. send the line. An
idle log is cosigned again from time to time: the age of a cosignature shows that somebody watches.

What contradicts what was cosigned before is kept as evidence and sent to the broker as a complaint, and
the witness stops: a person goes on from there.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from policies.encoding import canonical
from policies.limits import WITNESS_POLL_S, WITNESS_REPEAT_S
from policies.log.checkpoint import NOTE_BYTES, parse_checkpoint, parse_note
from policies.log.equivocation import Evidence, prove
from policies.log.errors import LogError
from policies.log.tiles import TILE_WIDTH, TileTree, tile_path
from policies.log.witness import Cosign, Refuse
from policies.verify.errors import InputError, UnknownWitnessError, UnreachableError
from policies.verify.report import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.ports import Timer
    from policies.verify.witnessing.store import WitnessStore

__all__ = ["Pinned", "Pulled", "Remote", "pull"]

Json = Any
_HASH = 32
_UNKNOWN = "witness.unknown"
_PROBLEM_BYTES = 4_000  # of the document that says why
_ANSWER_BYTES = 4 * NOTE_BYTES
_TIMEOUT_S = WITNESS_POLL_S + 10


class Remote(Protocol):
    """A log over HTTP; tests answer themselves."""

    def get(self, path: str, most: int) -> bytes:
        """Body of an answer 200, at most so many bytes."""
        ...

    def post(self, path: str, body: Mapping[str, Json]) -> None:
        """Sends JSON."""
        ...


class Pinned:
    """A log behind a URL whose certificate has one known SHA-256.

    Args:
        url: ``https://host:port``.
        tls_sha256: 64 hex digits, of the certificate in DER.

    Raises:
        InputError: The URL is no such one, or the certificate is another.
        UnreachableError: Nothing answers there.
    """

    def __init__(self, url: str, tls_sha256: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname is None or parts.path not in ("", "/"):
            raise InputError(need="https://HOST[:PORT]", found=plain(url), remedy="give the broker's address")
        self._base = f"https://{parts.netloc}"
        pem = _certificate(parts.hostname, parts.port or 443)
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        if found != tls_sha256.removeprefix("sha256:"):
            raise InputError(
                need=f"the certificate {plain(tls_sha256)}",
                found=f"sha256:{found}",
                remedy="do not go on: somebody stands between, or it was replaced; telephone the operator",
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the pinned certificate itself is the anchor
        context.load_verify_locations(cadata=pem)
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}), _NoRedirects()
        )

    def get(self, path: str, most: int) -> bytes:
        """Body of an answer 200.

        Raises:
            UnreachableError: Another answer, none, or a longer one.
        """
        return self._call(urllib.request.Request(self._base + path), most)  # noqa: S310  https only

    def post(self, path: str, body: Mapping[str, Json]) -> None:
        """Sends JSON.

        Raises:
            UnreachableError: Another answer than success.
        """
        data = canonical(dict(body))  # the broker takes no other spelling
        headers = {"Content-Type": "application/json"}
        self._call(urllib.request.Request(self._base + path, data, headers), _ANSWER_BYTES)  # noqa: S310

    def _call(self, request: urllib.request.Request, most: int) -> bytes:
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                data: bytes = response.read(most + 1)
        except urllib.error.HTTPError as error:
            raise _refused_with(request.full_url, error) from error
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(request.full_url, type(error).__name__) from error
        if len(data) > most:
            raise _unreachable(request.full_url, f"more than {most} bytes")
        return data


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A broker sends nobody elsewhere."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Refuses: the answer stays what it is."""
        return


def _certificate(host: str, port: int) -> str:
    try:
        return ssl.get_server_certificate((host, port), timeout=_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise _unreachable(f"{host}:{port}", type(error).__name__) from error


def _refused_with(where: str, error: urllib.error.HTTPError) -> UnreachableError:
    """What a refusal of the log says, without the document it comes in."""
    with error:
        told = _problem(error.read(_PROBLEM_BYTES))
    if told.get("code") == _UNKNOWN:
        return UnknownWitnessError(
            need="a witness that is registered at this log",
            found="yours is not: it is not registered yet, or it was removed",
            remedy="ask the operator: iriai-broker auditor list; auditor witness FILE registers a statement",
        )
    words = " ".join(str(told[name]) for name in ("code", "found") if isinstance(told.get(name), str))
    return _unreachable(where, f"status {error.code} {words}".strip())


def _problem(data: bytes) -> dict[str, Json]:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _unreachable(where: str, found: str) -> UnreachableError:
    return UnreachableError(
        need=f"an answer of the log at {plain(where)}",
        found=plain(found, limit=1_000),
        remedy="check address and network",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What one question came to: ``cosigned`` size, ``idle``, or ``refused`` with a reason.

    Attributes:
        what: One of the three.
        size: That was cosigned; else 0.
        reason: Of a refusal, for people.
        evidence: Of two histories; then the witness stops.
    """

    what: str
    size: int = 0
    reason: str = ""
    evidence: Evidence | None = None


def pull(store: WitnessStore, remote: Remote, origin: str, timer: Timer) -> Pulled:
    """Steps 1 to 4, once.

    Raises:
        UnreachableError: The log does not answer.
        UnknownWitnessError: It takes no cosignature of this witness.
    """
    known = store.size(origin)
    told = _head(remote.get(f"/api/v1/log/head?after={known}&wait={WITNESS_POLL_S}", _ANSWER_BYTES))  # 1.
    if told is None:
        return Pulled(what="idle")
    try:
        size = parse_checkpoint(parse_note(told).text).size
    except LogError as error:
        return Pulled(what="refused", reason=str(error))
    if size == known and timer.now_ms() // 1000 - store.time_s(origin) < WITNESS_REPEAT_S:
        return Pulled(what="idle")
    tree = TileTree(size, lambda level, n, width: _tile(remote, level, n, width))
    try:
        proof = tree.consistency(known, size) if 0 < known < size else []  # 2.
    except LogError as error:
        return Pulled(what="refused", reason=str(error))
    verdict = store.step(told, old_size=known, proof=proof)  # 3.
    if isinstance(verdict, Cosign):
        remote.post("/api/v1/witness/cosignatures", {"size": size, "lines": [verdict.line]})  # 4.
        return Pulled(what="cosigned", size=size)
    return _refused(store, remote, origin, verdict, tree)


def _refused(store: WitnessStore, remote: Remote, origin: str, verdict: Refuse, tree: TileTree) -> Pulled:
    evidence, ours = verdict.evidence, store.last_note(origin)
    if evidence is None or ours is None:
        return Pulled(what="refused", reason=verdict.reason)
    if tree.size > store.size(origin) and evidence.proof is None:
        evidence = prove(evidence.first, evidence.second, tree)
    proven = store.keep(evidence) is not None
    try:
        remote.post("/api/v1/witness/complaints", {"notes": [ours]})
    except UnreachableError as error:
        return Pulled(what="refused", reason=str(error), evidence=evidence if proven else None)
    return Pulled(what="refused", reason=verdict.reason, evidence=evidence if proven else None)


def _head(data: bytes) -> str | None:
    try:
        told = json.loads(data)
        note = told["note"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreachable("/api/v1/log/head", type(error).__name__) from error
    return note if isinstance(note, str) else None


def _tile(remote: Remote, level: int, n: int, width: int) -> bytes:
    return remote.get("/log/" + tile_path(level, n, width), TILE_WIDTH * _HASH)
