# SPDX-License-Identifier: Apache-2.0
"""Donated episodes under the consents of their donors, and the file in which both travel to a seed set.

- A consent (`policies.consents`) names its episodes one by one. An episode that it does not name is not
  given, and one that it names and that the seed set lacks makes the seed set another one than was agreed.
- ``iriai-donation/1`` is the consent with the episodes; donors hand these files to whoever joins them.

    envelope = seal_consent(Consent(...), key)
    consent = open_consent(envelope_bytes, public_key)       # ConsentInvalidError
    check_given(consent, rows)                               # exactly these episodes
    seeds, consents = join([read_donation(one) for one in files])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.consents import (
    CONSENT_TYPE,
    TERMS,
    Consent,
    ConsentInvalidError,
    open_consent,
    read_consent,
    seal_consent,
)
from policies.encoding import canonical, digest
from policies.errors import IriaiError
from policies.identity import parse_key
from policies.limits import CONSENT_BYTES, SEED_EPISODES, SEED_SET_BYTES
from policies.seed_episodes import SeedSetInvalidError, read_canonical, read_episode
from policies.seeds import SeedSet
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.seed_episodes import SeedEpisode

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

DONATION_SCHEMA: Final = "iriai-donation/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Donation:
    """A consent, the bytes of its envelope, and the episodes."""

    consent: Consent
    envelope: bytes
    episodes: tuple[SeedEpisode, ...]


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
        shown = tuple(tuple(sorted(part)) for part in (one.observation, one.action, one.labels))
        if shown != (consent.observation, consent.action, consent.labels):
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
        claimed = read_consent(read_canonical(sealed.payload, most=CONSENT_BYTES))
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
