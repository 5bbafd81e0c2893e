# SPDX-License-Identifier: Apache-2.0
"""The contracts that this node holds, as files of its own; whatever is read is checked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.answers import short
from client.errors import (
    DigestMismatchError,
    NoSuchThingError,
)
from client.settings import write_durably
from policies.contract import executed, parse
from policies.encoding import digest, is_digest
from policies.identity import key_text
from policies.signing import Envelope

if TYPE_CHECKING:
    from client.settings import Home
    from policies.contract import Contract
    from policies.contract.clauses import PartyClause
    from policies.recipe import Recipe

__all__ = ["ContractShelf", "Held", "check_digest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A contract on this node.

    Attributes:
        contract: Parsed from its canonical bytes.
        party: The clause that pins this node's key.
        envelope: Its signatures, all of them verified; ``None`` before it is executed.
    """

    contract: Contract
    party: PartyClause
    envelope: Envelope | None

    @property
    def is_executed(self) -> bool:
        """Whether every contributor and the broker have signed."""
        return self.envelope is not None


class ContractShelf:
    """Contracts of one node; parsed ones are kept, because bytes behind a digest cannot change."""

    def __init__(self, home: Home, *, own_key: bytes) -> None:
        self._home = home
        self._own = key_text(own_key)
        self._held: dict[str, Held] = {}
        self._recipes: dict[str, Recipe] = {}

    def digests(self) -> tuple[str, ...]:
        """Digests of the contracts that are here, in order."""
        if not self._home.contracts.exists():
            return ()
        return tuple(sorted(f"sha256:{one.name}" for one in self._home.contracts.iterdir() if one.is_dir()))

    def get(self, contract: str) -> Held:
        """The contract of a digest; signatures are verified again unless it was found executed before.

        Raises:
            NoSuchThingError: It is not here, or this node is no party.
            DigestMismatchError: The file was changed.
            IriaiError: The contract does not parse under this version's rules.
        """
        known = self._held.get(contract)
        if known is not None and known.is_executed:
            return known
        folder = self._folder(contract)
        try:
            data = (folder / "contract.json").read_bytes()
        except FileNotFoundError as error:
            raise NoSuchThingError(
                need="a contract on this node",
                found=short(contract),
                remedy=f"iriai-node contract show {contract}",
            ) from error
        parsed = parse(check_digest(data, contract))
        held = Held(contract=parsed, party=self.own_party(parsed), envelope=_executed(folder, parsed))
        self._held[contract] = held
        return held

    def own_party(self, contract: Contract) -> PartyClause:
        """The clause that pins this node's key.

        Raises:
            NoSuchThingError: None does.
        """
        party = contract.party_of_key(self._own)
        if party is None:
            raise NoSuchThingError(
                need="a contract that pins this node's key", found="other keys", remedy="ask who drafted it"
            )
        return party

    def recipe(self, contract: str, recipe: str) -> Recipe:
        """The recipe of a contract, from its annex.

        Raises:
            NoSuchThingError: The contract names no such recipe, or its annex is not here.
            DigestMismatchError: The annex was changed.
        """
        found = self._recipes.get(recipe)
        if found is None:
            from policies.recipe import load

            found = self._recipes[recipe] = load(self.recipe_bytes(contract, recipe))
        return found

    def recipe_bytes(self, contract: str, recipe: str) -> bytes:
        """Bytes of a recipe, once they are the ones that the contract names."""
        path = self._folder(contract) / f"recipe-{recipe.removeprefix('sha256:')}.json"
        if self.get(contract).contract.recipe(recipe) is None or not path.exists():
            raise NoSuchThingError(
                need="a recipe of the contract",
                found=short(recipe),
                remedy=f"iriai-node contract show {contract}",
            )
        return check_digest(path.read_bytes(), recipe)

    def put(self, contract: Contract, annexes: dict[str, bytes]) -> Held:
        """Stores a contract and its annexes, which the caller has checked by digest."""
        folder = self._folder(contract.digest)
        for name, data in annexes.items():
            write_durably(folder / f"recipe-{name.removeprefix('sha256:')}.json", data)
        write_durably(folder / "contract.json", contract.canonical)
        return self.get(contract.digest)

    def put_envelope(self, contract: str, envelope: Envelope) -> Held:
        """Stores the signatures of a contract, once all of them hold.

        Raises:
            NotExecutedError: A signature is missing or does not verify.
        """
        held = self.get(contract)
        executed(held.contract, envelope)
        write_durably(self._folder(contract) / "envelope.json", envelope.to_bytes())
        return self.get(contract)

    def _folder(self, contract: str) -> Any:  # noqa: ANN401  a Path; pathlib stays out of the run-time imports
        if not is_digest(contract):
            raise NoSuchThingError(
                need="sha256: and 64 hex digits",
                found=ascii(contract)[:80],
                remedy="iriai-node contract list",
            )
        return self._home.contracts / contract.removeprefix("sha256:")


def check_digest(data: bytes, wanted: str) -> bytes:
    """The bytes, if they have the digest.

    Raises:
        DigestMismatchError: They do not.
    """
    found = digest(data)
    if found != wanted:
        raise DigestMismatchError(
            need=wanted,
            found=found,
            remedy="fetch it again; if it repeats, report who sent it and do not sign",
        )
    return data


def _executed(folder: Any, contract: Contract) -> Envelope | None:  # noqa: ANN401  a Path
    try:
        envelope = Envelope.from_bytes((folder / "envelope.json").read_bytes())
    except FileNotFoundError:
        return None
    executed(contract, envelope)
    return envelope
