# SPDX-License-Identifier: Apache-2.0
"""What a donor signs about its episodes: the consent, which an auditor reads too. Standard library only.

- ``iriai-donation-consent/1``, a DSSE envelope by the donor's node key: which episodes by their digests, of
  which data set, which fields are shown, for what, under which licence, *openly and irrevocably*. The digest
  of the envelope's bytes is `policies.contract.clauses.Donation.consent`.
- It names its episodes one by one; that a seed set holds exactly these is in `policies.donations`.

    envelope = seal_consent(Consent(...), key)
    consent = open_consent(envelope_bytes, public_key)       # ConsentInvalidError
    check_agreed(consent, party=…, dataset=…, licence=…)     # as a row of the contract's seed clause says

SeedError
  ConsentInvalidError    seed.consent-invalid  a consent that is not its donor's, or names other episodes
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import canonical, is_digest
from policies.errors import EncodingError, IriaiError, SignatureInvalidError
from policies.identity import key_text
from policies.limits import CONSENT_BYTES, SEED_EPISODES
from policies.signing import Envelope

if TYPE_CHECKING:
    from policies.identity import SigningKey

__all__ = [
    "CONSENT_TYPE",
    "TERMS",
    "Consent",
    "ConsentInvalidError",
    "SeedError",
    "check_agreed",
    "open_consent",
    "read_consent",
    "seal_consent",
]

Json = Any  # a JSON value

CONSENT_TYPE: Final = "application/vnd.iriai.donation-consent.v1+json"
CONSENT_SCHEMA: Final = "iriai-donation-consent/1"
TERMS: Final = "openly and irrevocably"
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_LISTS: Final = ("episodes", "observation", "action")
_LABELS: Final = "labels"  # there where an episode shows some; it may show no action then
_TEXTS: Final = ("party", "dataset", "licence", "purpose", "at", "key")


class SeedError(IriaiError):
    """Root of what is refused about seed sets, consents and start models."""

    code = "seed.refused"
    exit_code = 3
    http_status = 422


class ConsentInvalidError(SeedError):
    """A consent that its donor did not sign, or that names other episodes or terms."""

    code = "seed.consent-invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a donor says.

    Attributes:
        party: Its short name in the contract that the episodes are for.
        key: Its node key, ``ed25519:…``; the contract pins the same.
        dataset: The data set that they are from.
        licence: Under which everybody may use them.
        purpose: What they are given for: the name of the recipe's task. Open data cannot be held to it.
        episodes: Digests of what is published (`SeedEpisode.digest`), sorted.
        observation: Observed fields that are shown, sorted.
        action: Fields that are shown of what the outputs are learned from, sorted.
        at: When.
        labels: Labels that are shown, sorted.
    """

    party: str
    key: str
    dataset: str
    licence: str
    purpose: str
    episodes: tuple[str, ...]
    observation: tuple[str, ...]
    action: tuple[str, ...]
    at: str
    labels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """The payload."""
        return {
            "schema": CONSENT_SCHEMA,
            "terms": TERMS,
            **{name: getattr(self, name) for name in _TEXTS},
            **{name: list(getattr(self, name)) for name in _LISTS},
            **({_LABELS: list(self.labels)} if self.labels else {}),
        }


def seal_consent(consent: Consent, key: SigningKey) -> bytes:
    """Bytes of the signed consent; their digest names it."""
    return Envelope.seal(canonical(consent.to_json()), CONSENT_TYPE, key).to_bytes()


def open_consent(data: bytes, public_key: bytes) -> Consent:
    """The consent behind the bytes of its envelope.

    1. size, envelope, payload type, and the signature by this key; 2. exactly the keys and types; 3. the
    fixed words; 4. it names the key that signed it.

    Raises:
        ConsentInvalidError: With what was found.
    """
    # 1.
    if len(data) > CONSENT_BYTES:
        raise _refused(f"at most {CONSENT_BYTES} bytes", f"{len(data)} bytes")
    try:
        tree = Envelope.from_bytes(data).open_as(CONSENT_TYPE, public_key)
    except (EncodingError, SignatureInvalidError) as error:
        raise _refused(f"a consent signed by {key_text(public_key)}", f"{error.found}") from error
    # 2. to 4.
    consent = read_consent(tree)
    if consent.key != key_text(public_key):
        raise _refused(f"a consent in the name of {key_text(public_key)}", consent.key)
    return consent


def read_consent(tree: Json) -> Consent:
    """The consent in a payload, whoever signed it.

    Raises:
        ConsentInvalidError: Other keys, types or words.
    """
    names = {"schema", "terms", *_TEXTS, *_LISTS}
    if not isinstance(tree, dict) or set(tree) - {_LABELS} != names or tree["schema"] != CONSENT_SCHEMA:
        raise _refused(f"{CONSENT_SCHEMA} with the keys {', '.join(sorted(names))}", "another document")
    labelled = _LABELS in tree
    wanted = (*_LISTS, _LABELS) if labelled else _LISTS
    texts = [tree[name] for name in _TEXTS]
    if tree["terms"] != TERMS or not all(isinstance(one, str) and one for one in texts):
        raise _refused(f"words, and the terms {TERMS!r}", ascii(tree["terms"])[:60])
    if _TIME.fullmatch(tree["at"]) is None:
        raise _refused("at: a time in whole seconds", ascii(tree["at"])[:40])
    for name in wanted:
        found, least = tree[name], 0 if labelled and name == "action" else 1
        sound = isinstance(found, list) and least <= len(found) <= SEED_EPISODES
        if not sound or not all(isinstance(one, str) for one in found) or found != sorted(set(found)):
            raise _refused(f"{name}: {least} to {SEED_EPISODES} names, each once, sorted", "another list")
    if not all(map(is_digest, tree["episodes"])):
        raise _refused("episodes: digests", "others")
    said: dict[str, Any] = {name: tree[name] for name in _TEXTS}
    said |= {name: tuple(tree[name]) for name in wanted}
    return Consent(**said)


def check_agreed(consent: Consent, *, party: str, dataset: str, licence: str) -> None:
    """Refuses a consent that is not about what a contract's donation says.

    Raises:
        ConsentInvalidError: With what differs.
    """
    wanted, found = (party, dataset, licence), (consent.party, consent.dataset, consent.licence)
    if found != wanted:
        raise ConsentInvalidError(
            need=" ".join(wanted),
            found=" ".join(found)[:200],
            remedy="write the clause as the donor consented",
        )


def _refused(need: str, found: str) -> ConsentInvalidError:
    return ConsentInvalidError(
        need=need, found=found[:200], remedy="ask the donor to donate again: iriai-node seed donate"
    )
