# SPDX-License-Identifier: Apache-2.0
"""What a donor signs about its episodes, and the file in which both travel until a seed set is made.

- ``iriai-donation-consent/1``, a DSSE envelope by the donor's node key: which episodes by their digests, of
  which data set, which fields are shown, for what, under which licence, *openly and irrevocably*. The digest
  of the envelope's bytes is `policies.contract.clauses.Donation.consent`.
- A consent names its episodes one by one. An episode that it does not name is not given, and one that it
  names and that the seed set lacks makes the seed set another one than was agreed.
- ``iriai-donation/1`` is the consent with the episodes; donors hand these files to whoever joins them.

    envelope = seal_consent(Consent(...), key)
    consent = open_consent(envelope_bytes, public_key)       # ConsentInvalidError
    check_given(consent, rows)                               # exactly these episodes
    seeds, consents = join([read_donation(one) for one in files])
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import canonical, digest, is_digest
from policies.errors import EncodingError, IriaiError, SignatureInvalidError
from policies.identity import key_text, parse_key
from policies.limits import CONSENT_BYTES, SEED_EPISODES, SEED_SET_BYTES
from policies.seeds import ConsentInvalidError, SeedSet, SeedSetInvalidError, read_canonical, read_episode
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.identity import SigningKey
    from policies.seeds import SeedEpisode

__all__ = [
    "CONSENT_TYPE",
    "TERMS",
    "Consent",
    "Donation",
    "check_given",
    "donation_bytes",
    "join",
    "open_consent",
    "read_donation",
    "seal_consent",
]

Json = Any  # a JSON value

CONSENT_TYPE: Final = "application/vnd.iriai.donation-consent.v1+json"
CONSENT_SCHEMA: Final = "iriai-donation-consent/1"
DONATION_SCHEMA: Final = "iriai-donation/1"
TERMS: Final = "openly and irrevocably"
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_LISTS: Final = ("episodes", "observation", "action")
_TEXTS: Final = ("party", "dataset", "licence", "purpose", "at", "key")


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
        action: Commanded fields that are shown, sorted.
        at: When.
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

    def to_json(self) -> dict[str, Json]:
        """The payload."""
        return {
            "schema": CONSENT_SCHEMA,
            "terms": TERMS,
            **{name: getattr(self, name) for name in _TEXTS},
            **{name: list(getattr(self, name)) for name in _LISTS},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Donation:
    """A consent, the bytes of its envelope, and the episodes."""

    consent: Consent
    envelope: bytes
    episodes: tuple[SeedEpisode, ...]


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
    consent = _read(tree)
    if consent.key != key_text(public_key):
        raise _refused(f"a consent in the name of {key_text(public_key)}", consent.key)
    return consent


def _read(tree: Json) -> Consent:
    names = {"schema", "terms", *_TEXTS, *_LISTS}
    if not isinstance(tree, dict) or set(tree) != names or tree["schema"] != CONSENT_SCHEMA:
        raise _refused(f"{CONSENT_SCHEMA} with the keys {', '.join(sorted(names))}", "another document")
    texts, lists = [tree[name] for name in _TEXTS], [tree[name] for name in _LISTS]
    if tree["terms"] != TERMS or not all(isinstance(one, str) and one for one in texts):
        raise _refused(f"words, and the terms {TERMS!r}", ascii(tree["terms"])[:60])
    if _TIME.fullmatch(tree["at"]) is None:
        raise _refused("at: a time in whole seconds", ascii(tree["at"])[:40])
    for name, found in zip(_LISTS, lists, strict=True):
        sound = isinstance(found, list) and 0 < len(found) <= SEED_EPISODES
        if not sound or not all(isinstance(one, str) for one in found) or found != sorted(set(found)):
            raise _refused(f"{name}: 1 to {SEED_EPISODES} names, each once, sorted", "another list")
    if not all(map(is_digest, tree["episodes"])):
        raise _refused("episodes: digests", "others")
    said: dict[str, Any] = {name: tree[name] for name in _TEXTS}
    said |= {name: tuple(tree[name]) for name in _LISTS}
    return Consent(**said)


def check_given(consent: Consent, episodes: Iterable[SeedEpisode]) -> None:
    """Refuses episodes that are not exactly those of a consent, under its terms.

    1. the same episodes, none more and none less; 2. party, data set and licence of each; 3. the fields that
    each shows.

    Raises:
        ConsentInvalidError: With what differs.
    """
    given = tuple(episodes)
    # 1.
    if sorted(one.digest for one in given) != list(consent.episodes):
        raise _refused(
            f"exactly the {len(consent.episodes)} episodes that the consent names",
            f"{len(given)}, of which it names {len({one.digest for one in given} & set(consent.episodes))}",
        )
    for one in given:
        # 2.
        terms = (one.party, one.dataset, one.licence)
        wanted = (consent.party, consent.dataset, consent.licence)
        if terms != wanted:
            raise _refused(" ".join(wanted), " ".join(terms))
        # 3.
        if (tuple(sorted(one.observation)), tuple(sorted(one.action))) != (
            consent.observation,
            consent.action,
        ):
            raise _refused("the fields that the consent names", " ".join(sorted(one.fields)))


# --- the donor's file ---


def donation_bytes(envelope: bytes, episodes: Iterable[SeedEpisode]) -> bytes:
    """Canonical bytes of a donation."""
    rows = [one.to_json() for one in sorted(episodes, key=lambda one: one.digest)]
    tree = {
        "schema": DONATION_SCHEMA,
        "consent": Envelope.from_bytes(envelope).to_json(),
        "episodes": rows,
    }
    return canonical(tree)


def read_donation(data: bytes) -> Donation:
    """The donation behind canonical bytes: a consent by the key that it names, and exactly its episodes.

    Raises:
        SeedSetInvalidError: Not a donation, or an unsound episode.
        ConsentInvalidError: The consent does not hold, or is about other episodes.
    """
    tree = read_canonical(data, most=SEED_SET_BYTES + CONSENT_BYTES)
    keys = {"schema", "consent", "episodes"}
    if not isinstance(tree, dict) or set(tree) != keys or tree["schema"] != DONATION_SCHEMA:
        raise _no_donation("another document")
    rows = tree["episodes"]
    if not isinstance(rows, list) or not 0 < len(rows) <= SEED_EPISODES:
        raise _no_donation("no list of episodes")
    try:
        sealed = Envelope.from_json(tree["consent"])
        envelope = sealed.to_bytes()
        claimed = _read(read_canonical(sealed.payload, most=CONSENT_BYTES))
        consent = open_consent(envelope, parse_key(claimed.key))
    except SeedSetInvalidError as error:
        raise _refused(error.need, error.found) from error
    except ConsentInvalidError:
        raise
    except IriaiError as error:  # no envelope, or no key
        raise _refused("a signed consent", error.found) from error
    episodes = tuple(read_episode(row, f"episodes.{number}") for number, row in enumerate(rows))
    check_given(consent, episodes)
    if any(one.consent != digest(envelope) for one in episodes):
        raise _refused(f"episodes under this consent, {digest(envelope)}", "another consent")
    return Donation(consent=consent, envelope=envelope, episodes=episodes)


def join(donations: Iterable[Donation]) -> tuple[SeedSet, dict[str, bytes]]:
    """The seed set of some donations, and the consents by digest.

    Raises:
        SeedSetInvalidError: No donation, the same data set of a party twice, too many or too large.
    """
    given = tuple(donations)
    sources = [(one.consent.party, one.consent.dataset) for one in given]
    if len(set(sources)) != len(sources):
        raise SeedSetInvalidError(
            need="one donation for each party and data set",
            found=", ".join(sorted({f"{party} {dataset}" for party, dataset in sources})),
            remedy="let the donor put all its episodes of the data set into one donation",
        )
    seeds = SeedSet.of(episode for one in given for episode in one.episodes)
    return seeds, {digest(one.envelope): one.envelope for one in given}


def _no_donation(found: str) -> SeedSetInvalidError:
    return SeedSetInvalidError(
        need=f"{DONATION_SCHEMA}", found=found, remedy="iriai-node seed donate writes one"
    )


def _refused(need: str, found: str) -> ConsentInvalidError:
    return ConsentInvalidError(
        need=need, found=found[:200], remedy="ask the donor to donate again: iriai-node seed donate"
    )
