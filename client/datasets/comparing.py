# SPDX-License-Identifier: Apache-2.0
"""``data fingerprints`` and ``data compare``: does another member have the same episodes?

One member makes a file for one other, who compares it with what is there. Both keys are those that a contract
pins which both signed; so the broker, or whoever carries the file, learns nothing (client.data.fingerprints).
The file is handed over by its owner: no command sends it.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Final

from client.answers import Answer, plain, short
from client.contract.reading import fetch, latest_signed
from client.data.errors import FingerprintsError
from client.datasets.adding import allowed_fields
from client.datasets.outputs import check_out, writing
from client.errors import NoSuchThingError
from client.settings import load_settings
from policies.identity import key_text, parse_key

if TYPE_CHECKING:
    from pathlib import Path

    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from policies.contract.clauses import PartyClause
    from policies.ports import Entropy

__all__ = ["data_compare", "data_fingerprints"]

_SHOWN: Final = 20


def data_fingerprints(
    member: Member,
    shelf: ContractShelf,
    peer: str,
    out: Path,
    *,
    dataset: str | None,
    contract: str | None,
    entropy: Entropy,
) -> Answer:
    """Writes the file for one other member.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        peer: Short name or ``org_…`` of the other member.
        out: File to write; an existing one is left alone.
        dataset: Name; needed where this site has several.
        contract: Digest of the contract that pins both keys; the newest signed one if left out.
        entropy: Of nonce and noise.

    Raises:
        NoSuchThingError: No such member in the contract, or several data sets and none named.
        FingerprintsError: No contract in force with this node's present key, or too many episodes.
        FileTakenError: ``out`` is there already.
    """
    from client.data.fingerprints import comparable, make_fingerprints

    held, other = _pair(member, shelf, peer, contract)
    name = _dataset(member, dataset)
    check_out(out, new=True)
    fields = allowed_fields(held, load_settings(member.home).local)
    made = make_fingerprints(
        member.home.data,
        name,
        contract=held.contract.digest,
        fields=fields,
        key=member.identity.key,
        peer=parse_key(other.key),
        entropy=entropy,
    )
    marked, episodes = comparable(member.home.data, name, fields)
    with writing(out):
        out.write_bytes(made)
    facts = {
        "comparable": marked,
        "episodes": episodes,
        "file": str(out),
        "dataset_id": name,
        "for": other.party,
        "contract": held.contract.digest,
        "bytes": len(made),
    }
    return Answer(
        data=facts,
        text=(
            f"written    {out}, for {plain(other.legal_name)} alone",
            f"tells      which of its own episodes are in {name} too; nothing else, and nobody else",
            _covered(marked, episodes),
            "next       send it; there:",
            f"           iriai-node data compare {quote(out.name)} --from {held.party.party}",
        ),
    )


def data_compare(
    member: Member,
    shelf: ContractShelf,
    file: Path,
    peer: str,
    *,
    dataset: str | None,
    contract: str | None,
) -> Answer:
    """Finds this site's episodes that the other member has too.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        file: What the other member sent.
        peer: Short name or ``org_…`` of the other member.
        dataset: Name; all data sets of this site if left out.
        contract: Digest of the contract that pins both keys; the newest signed one if left out.

    Raises:
        NoSuchThingError: No such file, or no such member in the contract.
        FingerprintsError: Another form, or made for another contract or reader.
        SignatureInvalidError: Not signed by that member.
    """
    from client.data.fingerprints import comparable, compare_fingerprints

    held, other = _pair(member, shelf, peer, contract)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise NoSuchThingError(
            need="the file that the other member sent",
            found=f"{file.name}: {type(error).__name__}",
            remedy="check the path",
        ) from error
    names = [dataset] if dataset is not None else _names(member)
    fields = allowed_fields(held, load_settings(member.home).local)
    shared = {
        name: compare_fingerprints(
            data,
            member.home.data,
            name,
            contract=held.contract.digest,
            fields=fields,
            key=member.identity.key,
            peer=parse_key(other.key),
        )
        for name in names
    }
    counts = [comparable(member.home.data, name, fields) for name in names]
    marked, episodes = sum(one[0] for one in counts), sum(one[1] for one in counts)
    rows = [f"{name}  {one}" for name, found in shared.items() for one in found]
    more = len(rows) - _SHOWN
    lines = [f"{len(rows)} of your episodes are also at {plain(other.legal_name)}", *rows[:_SHOWN]]
    lines += [f"and {more} more: --json lists all"] if more > 0 else []
    lines.append(_covered(marked, episodes))
    if rows:
        lines.append("next       agree who keeps them: two members with one episode count it twice")
    return Answer(
        data={
            "from": other.party,
            "contract": held.contract.digest,
            "shared": {name: list(found) for name, found in shared.items()},
            "count": len(rows),
            "comparable": marked,
            "episodes": episodes,
        },
        text=tuple(lines),
    )


def _covered(marked: int, episodes: int) -> str:
    """Nothing found says nothing of episodes that cannot be compared."""
    short = "; the others are too short, or move too little" if marked < episodes else ""
    return f"compared   {marked} of {episodes} episodes{short}"


def _pair(member: Member, shelf: ContractShelf, peer: str, contract: str | None) -> tuple[Held, PartyClause]:
    """The contract in force, and the other member as it pins it."""
    held = fetch(member, shelf, contract or latest_signed(member, shelf))
    own = key_text(member.identity.key.public)
    if not held.is_executed or held.party.key != own:
        raise FingerprintsError(
            need="a contract that both signed with their present keys",
            found="one that waits for signatures" if not held.is_executed else "one with a former key",
            remedy=f"iriai-node contract show {short(held.contract.digest)}; name another with --contract",
        )
    others = [one for one in held.contract.contributors if one.party != held.party.party]
    found = next((one for one in others if peer in {one.party, one.org}), None)
    if found is None:
        raise NoSuchThingError(
            need="another member of the contract: " + ", ".join(one.party for one in others),
            found=ascii(peer)[:60],
            remedy="use one of these names, or another --contract",
        )
    return held, found


def _names(member: Member) -> list[str]:
    from client.data import Store

    return sorted(Store(member.home.data).catalogue().datasets)


def _dataset(member: Member, dataset: str | None) -> str:
    names = _names(member)
    if dataset is None and len(names) != 1:
        raise NoSuchThingError(
            need="one data set: " + (", ".join(names) or "this site has none yet"),
            found="none named",
            remedy="name it with --dataset",
        )
    return dataset or names[0]
