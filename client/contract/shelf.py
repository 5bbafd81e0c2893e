# SPDX-License-Identifier: Apache-2.0
"""The contracts that this node holds, as files of its own; whatever is read is checked again.

::

    contracts/<64 hex>/contract.json     canonical bytes; their digest is the folder's name contracts/<64
    hex>/envelope.json     DSSE with the signatures, once it is executed contracts/<64 hex>/recipe-<64
    hex>.json contracts/<64 hex>/annex-<64 hex>     seed set, consent or start model
    (`client.contract.starts`)
    contracts/<64 hex>/prose.pdf|.txt    the text for people, once its hash is the one that the
    contract binds contracts/<64 hex>/notices/          halts, exits and other notices
    (`client.contract.notices`)
    contracts/<64 hex>/consent.json      a person's word on exactly this digest (`client.contract.consent`)
    contracts/shown.json                 per contract, the digests that a person was shown, in order
    contracts/lanes/neg_….json           negotiations (`client.contract.lane_book`)
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from client.answers import short
from client.contract.notices import Notices, make_folder
from client.contract.succession import predecessor
from client.errors import (
    DigestMismatchError,
    NoSuchThingError,
    NoticesUnknownError,
    ProseMismatchError,
)
from client.keyring import read_history
from client.settings import write_durably
from policies.contract import parse
from policies.contract.entering import check_entered, is_executed
from policies.encoding import canonical, digest, is_digest
from policies.identity import key_text
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client.contract.starts import Start
    from client.settings import Home
    from policies.contract import Contract
    from policies.contract.clauses import PartyClause, ProseClause
    from policies.recipe import Recipe

__all__ = ["ContractShelf", "Held", "check_digest", "check_prose"]

_SUFFIX: Final = {"application/pdf": ".pdf", "text/plain": ".txt"}
_SHOWN: Final = 64  # digests per contract; an offer has at most 20 rounds
_NONE: Final[Mapping[str, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A contract on this node.

    Attributes:
        contract: Parsed from its canonical bytes.
        party: The clause that pins this node's key, the present one or one that it had before.
        envelope: Its signatures, all of them verified; ``None`` before it is executed.
        tightens: Whether it entered as a tightening, by the signatures of its initiator and the broker.
    """

    contract: Contract
    party: PartyClause
    envelope: Envelope | None
    tightens: bool = False

    @property
    def is_executed(self) -> bool:
        """Whether it may be used: everybody signed it, or it tightens what everybody signed."""
        return self.envelope is not None


class ContractShelf:
    """Contracts of one node; parsed ones are kept, because bytes behind a digest cannot change."""

    def __init__(self, home: Home, *, own_key: bytes) -> None:
        self._home = home
        self._own = own_key
        self._held: dict[str, Held] = {}
        self._recipes: dict[str, Recipe] = {}
        self.starts: dict[tuple[str, str], Start] = {}  # kept by `client.contract.starts`

    def digests(self) -> tuple[str, ...]:
        """Digests of the contracts that are here, in order."""
        if not self._home.contracts.exists():
            return ()
        names = (f"sha256:{one.name}" for one in self._home.contracts.iterdir() if one.is_dir())
        return tuple(sorted(one for one in names if is_digest(one)))

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
        folder = self.folder(contract)
        try:
            data = (folder / "contract.json").read_bytes()
        except FileNotFoundError as error:
            raise NoSuchThingError(
                need="a contract on this node",
                found=short(contract),
                remedy=f"iriai-node contract show {contract}",
            ) from error
        parsed = parse(check_digest(data, contract))
        envelope = self._executed(parsed)
        held = Held(
            contract=parsed,
            party=self.own_party(parsed),
            envelope=envelope,
            tightens=envelope is not None and not is_executed(parsed, envelope),
        )
        self._held[contract] = held
        return held

    def versions(self, contract_id: str) -> tuple[Held, ...]:
        """Every version and offer of a contract that is here: by version, executed ones last in each."""
        found = [one for one in map(self.get, self.digests()) if one.contract.contract_id == contract_id]
        return tuple(
            sorted(found, key=lambda one: (one.contract.version, one.is_executed, one.contract.digest))
        )

    def in_force(self, contract_id: str) -> Held | None:
        """The newest executed version of a contract that is here."""
        return next((one for one in reversed(self.versions(contract_id)) if one.is_executed), None)

    def earlier(self, contract: str) -> tuple[str, ...]:
        """Digests of the versions that a contract superseded, newest first, as far as they are known here."""
        found: list[str] = []
        known = set(self.digests())
        before = self.get(contract).contract.supersedes
        while before is not None and before not in found:
            found.append(before)
            before = self.get(before).contract.supersedes if before in known else None
        return tuple(found)

    def own_party(self, contract: Contract) -> PartyClause:
        """The clause that pins this node's key, the present one or one that it had before.

        Raises:
            NoSuchThingError: None does.
            KeyFileError: The history of this node's keys was changed.
        """
        keys = (self._own, *reversed(read_history(self._home.keys).former(self._own)))
        party = next((one for key in keys if (one := contract.party_of_key(key_text(key)))), None)
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
        path = self.folder(contract) / f"recipe-{recipe.removeprefix('sha256:')}.json"
        if self.get(contract).contract.recipe(recipe) is None or not path.exists():
            raise NoSuchThingError(
                need="a recipe of the contract",
                found=short(recipe),
                remedy=f"iriai-node contract show {contract}",
            )
        return check_digest(path.read_bytes(), recipe)

    def prose_file(self, contract: Contract) -> Path | None:
        """Where the text for people lies, or will lie; ``None`` if the contract binds none."""
        if contract.prose is None:
            return None
        return self.folder(contract.digest) / f"prose{_SUFFIX[contract.prose.media_type]}"

    def annex_names(self, contract: str) -> tuple[str, ...]:
        """Digests of the seed sets, consents and start models that lie here, by the names of their files."""
        names = (one.name.removeprefix("annex-") for one in self.folder(contract).glob("annex-*"))
        return tuple(sorted(f"sha256:{name}" for name in names))

    def annexes(self, contract: str) -> dict[str, bytes]:
        """Bytes of what lies here beside the recipes; a file that was changed is left out."""
        folder = self.folder(contract)
        found = {
            name: (folder / f"annex-{name.removeprefix('sha256:')}").read_bytes()
            for name in self.annex_names(contract)
        }
        return {name: data for name, data in found.items() if digest(data) == name}

    def put_annex(self, contract: str, data: bytes) -> None:
        """Stores a seed set, consent or start model, named by its digest."""
        write_durably(self.folder(contract) / f"annex-{digest(data).removeprefix('sha256:')}", data)

    def put(
        self, contract: Contract, annexes: Mapping[str, bytes], opens: Mapping[str, bytes] = _NONE
    ) -> Held:
        """Stores a contract, its recipes and what they start from, which the caller has checked by digest."""
        folder = self.folder(contract.digest)
        for name, data in annexes.items():
            write_durably(folder / f"recipe-{name.removeprefix('sha256:')}.json", data)
        for data in opens.values():
            self.put_annex(contract.digest, data)
        write_durably(folder / "contract.json", contract.canonical)
        return self.get(contract.digest)

    def put_prose(self, contract: Contract, data: bytes) -> None:
        """Stores the text for people.

        Raises:
            ProseMismatchError: It is not the one that the contract binds; nothing is stored.
        """
        path = self.prose_file(contract)
        if contract.prose is not None and path is not None:
            write_durably(path, check_prose(contract.prose, data))

    def put_envelope(self, contract: str, envelope: Envelope) -> Held:
        """Stores the signatures of a contract, once all of them hold.

        Raises:
            NotExecutedError, RefusedError, ProofMissingError: See `_check_signed`; nothing is stored.
        """
        held = self.get(contract)
        self._check_signed(held.contract, envelope)
        if not held.is_executed:
            make_folder(self.folder(contract))  # from here on, a missing one means that it was lost
        write_durably(self.folder(contract) / "envelope.json", envelope.to_bytes())
        return self.get(contract)

    def _executed(self, contract: Contract) -> Envelope | None:
        try:
            data = (self.folder(contract.digest) / "envelope.json").read_bytes()
        except FileNotFoundError:
            return None
        envelope = Envelope.from_bytes(data)
        self._check_signed(contract, envelope)
        return envelope

    def _check_signed(self, contract: Contract, envelope: Envelope) -> None:
        """Everybody signed; or it tightens an executed contract that is here, which is found again here.

        Raises:
            NotExecutedError: A signature is missing or does not verify.
            RefusedError, ProofMissingError: See `policies.contract.entering.check_entered`.
        """
        ruling = predecessor(self, contract)
        old = None if ruling is None else ruling.contract
        rotated: Mapping[str, str] = {}
        if ruling is not None:
            with contextlib.suppress(NoticesUnknownError):
                rotated = Notices(self).life(ruling).rotated
        check_entered(contract, envelope, old=old, rotated=rotated)

    def shown(self, contract_id: str) -> tuple[str, ...]:
        """Digests of a contract's versions that a person was shown here, oldest first."""
        return self._shown().get(contract_id, ())

    def mark_shown(self, contract: Contract) -> None:
        """Remembers that a person was shown this version last."""
        all_of_them = self._shown()
        before = [one for one in all_of_them.get(contract.contract_id, ()) if one != contract.digest]
        now = all_of_them | {contract.contract_id: (*before, contract.digest)[-_SHOWN:]}
        write_durably(self._home.contracts / "shown.json", canonical({k: list(v) for k, v in now.items()}))

    def _shown(self) -> dict[str, tuple[str, ...]]:
        try:
            found = json.loads((self._home.contracts / "shown.json").read_bytes())
            return {key: tuple(filter(is_digest, value)) for key, value in found.items()}
        except (FileNotFoundError, ValueError, AttributeError, TypeError):  # a comfort, not a record
            return {}

    def folder(self, contract: str) -> Path:
        """Where everything about one digest lies.

        Raises:
            NoSuchThingError: It is no digest; no path is made of it.
        """
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


def check_prose(clause: ProseClause, data: bytes) -> bytes:
    """The text for people, if it is the one that the contract binds.

    Raises:
        ProseMismatchError: It is another one.
    """
    found = digest(data)
    if found != f"sha256:{clause.sha256}":
        raise ProseMismatchError(
            need=f"the text whose SHA-256 is {clause.sha256}",
            found=found.removeprefix("sha256:"),
            remedy="do not sign; ask for the text that was drafted with it, and report who sent yours",
            clause=clause.clause,
        )
    return data
