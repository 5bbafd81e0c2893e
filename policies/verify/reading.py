# SPDX-License-Identifier: Apache-2.0
"""Steps 1 to 3 of the verifier: from the bytes of a bundle to a history that later rules can work on.

`Unreadable` ends the audit: what is left would mean nothing. Everything else is a finding, and reading goes
on.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any

from policies.contract.clauses import parse as parse_contract
from policies.encoding import canonical, digest, parse, unb64
from policies.errors import EncodingError, IriaiError
from policies.limits import APPROVAL_BYTES, BUNDLE_ORGANISATIONS, CONTRACT_BYTES, RECIPE_BYTES
from policies.log.bundle import TILE, VERSIONS
from policies.log.checkpoint import KeyKind, open_checkpoint, parse_checkpoint, parse_note
from policies.log.entries import ALIAS_KEY_BYTES
from policies.log.errors import BundleError, NoteError, ProofError, QuorumError
from policies.log.kinds import ID, VERSION
from policies.log.merkle import HASH_BYTES
from policies.log.tiles import TileName, parse_tile_path, tiles_of
from policies.log.zipform import MANIFEST, manifest_pieces
from policies.signing import parse_envelope_json
from policies.verify.history import RUN_KINDS, History
from policies.verify.keyring import keyring_of
from policies.verify.ledger import CODES, Ledger
from policies.verify.packs import RULES_OF, envelope_of, pack_name
from policies.verify.parallel import chunks, in_order
from policies.verify.scan import Scan
from policies.verify.source import Files, Source
from policies.verify.spill import SpillFile, SpillTree
from policies.verify.store import Store
from policies.verify.tree_rules import REFS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from policies.log.checkpoint import Checkpoint
    from policies.log.policy import Policy
    from policies.verify.report import Report

__all__ = ["Unreadable", "read_history"]

Json = Any
_GRADES = ("auditor", "member")
_REQUIRED = ("BUNDLE", "MANIFEST", "checkpoint", "checkpoints.log", "policy", "keys/aliases.json")
_FILES_PER_PART = 256
_ALIAS_BYTES = 256  # of one organisation with its key
_SIGNATURES_BYTES = 4 * CONTRACT_BYTES  # the contract in base64, and every signature that may be there
TILES_PER_PART = 16
_BUNDLE_FIELDS = {"format", "grade", "origin", "size", "software", "v"}


class Unreadable(Exception):  # noqa: N818  not an error of ours: the report says what was found
    """The audit cannot go on; the report has the finding."""


def read_history(
    data: bytes | Path, policy: Policy, report: Report, *, grade: str | None = None, jobs: int = 1
) -> History:
    """The history in a bundle.

    Args:
        data: The bundle, or the path of its file, which stays open as long as the history is used.
        policy: The auditor's own.
        report: Gets the findings.
        grade: What the auditor asked for; it decides, and a bundle of another grade is a finding. None takes
            the bundle's word, which nobody signed: for looking at entries, never for a verdict.
        jobs: Processes that read at the same time.

    Raises:
        Unreadable: The container, the versions or the checkpoint do not hold.
        OSError: The file cannot be read, or there is no room for temporary files.
    """
    files = _container(data, report, jobs)
    checkpoint = _checkpoint(files["checkpoint"], policy, report)
    version, told = _header(files, checkpoint, report)
    if grade is not None and told != grade:
        report.add("AUD-004", f"a bundle of grade {told}, yet grade {grade} is asked for")
        if grade == "auditor":  # of a member's view nothing that an audit asks for can be said
            report.remarks.append(
                "nothing else was looked at: ask for the auditor's bundle, or look at this view with"
                " --grade member, which is no audit"
            )
            raise Unreadable
    _check_tiles(files, checkpoint.size, version, report)
    ledger = Ledger(checkpoint.size)
    history = History(
        policy=policy,
        checkpoint=checkpoint,
        grade=grade or told,
        files=files,
        tree=SpillTree(checkpoint.size),
        store=Store(files, ledger),
    )
    _read_aliases(history, report)
    _read_documents(history, report)
    _scan(history, version, report, jobs)
    ledger.sort_runs(frozenset(CODES[kind] for kind in RUN_KINDS))
    return history


def _container(data: bytes | Path, report: Report, jobs: int) -> Files:
    """1. structure; 2. the sum of every file; 3. what must be there; 4. MANIFEST."""
    try:
        files = Files(Source(data))  # 1.
        digests = SpillFile()
        parts = chunks(files.container.count, _FILES_PER_PART)
        for wrong in in_order(lambda part: _check_sums(files, part, digests), parts, jobs):  # 2.
            if wrong:
                report.add("AUD-001", wrong)
                raise Unreadable
    except BundleError as error:
        report.add("AUD-001", f"needs {error.need}; found {error.found}")
        raise Unreadable from error
    missing = [name for name in _REQUIRED if name not in files]
    if missing:  # 3.
        report.add("AUD-002", "missing " + " ".join(missing))
        raise Unreadable
    _check_manifest(files, digests, report)  # 4.
    return files


def _check_sums(files: Files, part: range, digests: SpillFile) -> str:
    """Sums of some files, by their numbers, or what is wrong; their digests are kept in this order."""
    try:
        found = [files.container.check_file(one) for one in files.container.numbered(part)]
    except BundleError as error:
        return f"needs {error.need}; found {error.found}"
    digests.write(part.start * HASH_BYTES, b"".join(found))
    return ""


def _check_manifest(files: Files, digests: SpillFile, report: Report) -> None:
    """AUD-003, without holding the list of all files."""
    listed = (
        (name, digests.read(number * HASH_BYTES, HASH_BYTES))
        for number, name in enumerate(files.container.names())
        if name != MANIFEST
    )
    found = files.container.find(MANIFEST)
    said = iter(()) if found is None else files.container.pieces(found)
    held = b""
    for piece in manifest_pieces(listed):
        while len(held) < len(piece) and (more := next(said, b"")):
            held += more
        if not held.startswith(piece):
            names = "/".join(piece.decode("ascii").split('"')[-4:-3])
            report.add("AUD-003", f"MANIFEST is not the canonical list of the other files, from {names} on")
            return
        held = held[len(piece) :]
    if held or next(said, b""):
        report.add("AUD-003", "MANIFEST goes on after the last file")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteError(need="UTF-8", found="other bytes", remedy="fetch it again") from error


def _checkpoint(data: bytes, policy: Policy, report: Report) -> Checkpoint:
    try:
        parse_checkpoint(parse_note(_text(data)).text)
    except NoteError as error:
        report.add("AUD-010", f"checkpoint: needs {error.need}; found {error.found}")
        raise Unreadable from error
    try:
        keys = [one for one in policy.logs if one.kind is KeyKind.LOG]  # others: `policies.verify.witnesses`
        checkpoint = open_checkpoint(_text(data), keys)
    except NoteError as error:
        report.add("AUD-011", f"checkpoint: needs {error.need}; found {error.found}")
        raise Unreadable from error
    except QuorumError as error:
        report.untrusted = f"needs {error.need}; found {error.found}"
        raise Unreadable from error
    report.origin, report.size, report.root = checkpoint.origin, checkpoint.size, checkpoint.root.hex()
    return checkpoint


def _header(files: Files, checkpoint: Checkpoint, report: Report) -> tuple[int, str]:
    """Version and grade, if `BUNDLE` is one that this tool knows."""
    try:
        head = parse(files["BUNDLE"])
    except EncodingError as error:
        report.add("AUD-004", f"BUNDLE: needs {error.need}; found {error.found}")
        raise Unreadable from error
    if not isinstance(head, dict) or set(head) != _BUNDLE_FIELDS:
        report.add("AUD-004", "BUNDLE has other fields")
        raise Unreadable
    known = type(head["v"]) is int and head["format"] == VERSIONS.get(head["v"])
    if not known or head["grade"] not in _GRADES or not VERSION.holds(head["software"]):
        report.add("AUD-004", f"BUNDLE: {head['format']} {head['v']} {head['grade']} {head['software']}")
        raise Unreadable
    if (head["origin"], head["size"]) != (checkpoint.origin, checkpoint.size):
        report.add("AUD-004", f"BUNDLE says {head['origin']} of size {head['size']}")
    if head["v"] != files.container.layout:
        report.add("AUD-001", f"needs {MANIFEST} where format {head['v']} has it; found it elsewhere")
        raise Unreadable
    return int(head["v"]), str(head["grade"])


def _check_tiles(files: Files, size: int, version: int, report: Report) -> None:
    """AUD-002: exactly the tiles of the size, and packs of no other."""
    wrong = list(_misplaced(files, size, version))
    if wrong:
        report.add("AUD-002", "tiles: " + " ".join(sorted(wrong)[:5]))
        raise Unreadable
    tiles = -(-size // TILE)
    for folder, rule in RULES_OF.items():
        for name in files.container.names(f"{folder}/"):
            number = name.removeprefix(f"{folder}/").removesuffix(".jsonl")
            if int(re.sub("[x/]", "", number)) >= tiles or name != pack_name(folder, _number(number)):
                report.add(rule, f"{name}: of no tile of the log")


def _number(text: str) -> int:
    return int(re.sub("[x/]", "", text))


def _misplaced(files: Files, size: int, version: int) -> Iterator[str]:
    """Names of a few tiles that are missing, or that the size has not."""
    entries = (TileName(None, at, min(TILE, size - at * TILE)) for at in range(-(-size // TILE)))
    hashes = tiles_of(size) if version > 1 else iter(())
    count = 0
    for one in chain(entries, hashes):
        count += 1
        if one.path() not in files:
            yield one.path()
            return
    if sum(1 for _ in files.container.names("tile/")) == count:
        return
    wanted = {0 if one.level is None else one.level + 1 for one in tiles_of(size)} | {0}
    for name in files.container.names("tile/"):
        try:
            one = parse_tile_path(name)
        except ProofError:
            yield name
            return
        level = 0 if one.level is None else one.level
        known = one.level is None or (version > 1 and level + 1 in wanted)
        if not known or one.width != min(TILE, (size >> 8 * level) - one.n * TILE):
            yield name
            return


def _scan(history: History, version: int, report: Report, jobs: int) -> None:
    """1. every tile; 2. what refers back beyond its part; 3. the tree above the tiles; 4. the root."""
    store, tree = history.store, history.tree
    scan = Scan(
        files=history.files,
        ledger=history.ledger,
        tree=tree,
        keyring=keyring_of(history),
        origin=history.checkpoint.origin,
        grade=history.grade,
        hashed=version > 1,
    )
    back: list[tuple[int, int]] = []
    for part in in_order(scan.tiles, chunks(-(-history.size // TILE), TILES_PER_PART), jobs):  # 1.
        report.take(part.report)
        if part.fatal:
            raise Unreadable
        history.ledger.codes[part.start : part.start + len(part.codes)] = part.codes
        first = part.start // TILE
        store.broken[first : first + len(part.broken)] = part.broken
        back = part.refs
        _check_back(history, back, report)  # 2.
    tree.finish()  # 3.
    if version > 1:
        _check_upper(history, report)
    if tree.root() != history.checkpoint.root:  # 4.
        report.add("AUD-020", f"recomputed {tree.root().hex()}, signed {history.checkpoint.root.hex()}")


def _check_back(history: History, refs: Sequence[tuple[int, int]], report: Report) -> None:
    """AUD-034 of entries that refer to another part of the log."""
    store = history.store
    for index, ref in refs:
        permitted = REFS.get(store.kind(index))
        if permitted is not None and store.has(ref) and store.kind(ref) not in permitted:
            report.add("AUD-034", f"{store.kind(index)} refers to {store.kind(ref)}", index=index)


def _check_upper(history: History, report: Report) -> None:
    """AUD-021 above the lowest level, whose tiles were compared with the entries."""
    for one in tiles_of(history.size):
        if one.level:
            start = one.n * TILE
            expected = history.tree.hashes(8 * one.level, start, start + one.width)
            if history.files.get(one.path()) != b"".join(expected):
                report.add("AUD-021", f"{one.path()} is not of the entries")


def _read_aliases(history: History, report: Report) -> None:
    data = history.files["keys/aliases.json"]
    if len(data) > BUNDLE_ORGANISATIONS * _ALIAS_BYTES:
        report.add(
            "AUD-049", f"keys/aliases.json: {len(data)} bytes, for at most {BUNDLE_ORGANISATIONS} keys"
        )
        return
    try:
        table = parse(data)
        keys = {org: unb64(text) for org, text in table.items()}
        strict = canonical(table) == data
    except (EncodingError, AttributeError) as error:
        report.add("AUD-049", f"keys/aliases.json: {type(error).__name__}")
        return
    if len(keys) > BUNDLE_ORGANISATIONS:
        report.add("AUD-049", f"keys/aliases.json: {len(keys)} organisations, at most {BUNDLE_ORGANISATIONS}")
        return
    wrong = [org for org, key in keys.items() if not ID.holds(org) or len(key) != ALIAS_KEY_BYTES]
    if wrong or not strict or len(set(keys.values())) != len(keys):
        report.add("AUD-049", "keys/aliases.json: one key of 32 bytes per organisation, no two the same")
    history.aliases = {org: key for org, key in keys.items() if org not in wrong}


def _named(
    history: History, folder: str, suffix: str, *, most: int | None = None
) -> Iterator[tuple[str, bytes]]:
    """Digests that names of files say, with the bytes; larger files than ``most`` are left out, unread."""
    container = history.files.container
    for one in container.files(folder):
        if one.name.endswith(suffix) and (most is None or one.size <= most):
            named = one.name.removeprefix(folder).removesuffix(suffix)
            yield f"sha256:{named}", container.bytes_of(one)


def _read_documents(history: History, report: Report) -> None:
    """Contracts, recipes, approvals, consents, statements and so on: each is the bytes that its name says."""
    rules = {
        "contracts/": "AUD-050",
        "annexes/": "AUD-051",
        "approvals/": "AUD-080",
        "consents/": "AUD-068",
        "statements/": "AUD-071",
    }
    for folder, rule in rules.items():
        most = APPROVAL_BYTES if folder == "approvals/" else None
        for named, data in _named(history, folder, ".json", most=most):
            if digest(data) != named:
                report.add(rule, f"{folder}{named}: the bytes have digest {digest(data)}")
    _check_sizes(history, report)
    _read_contracts(history, report)
    wanted = {one.recipe_digest for contract in history.contracts.values() for one in contract.recipes}
    for named, data in _named(history, "annexes/", ".json"):
        if named not in wanted:
            continue  # nothing rests on it
        if len(data) > RECIPE_BYTES:
            report.add("AUD-051", f"recipe {named} has {len(data)} bytes, more than {RECIPE_BYTES}")
            continue
        try:
            recipe = parse(data)
        except EncodingError as error:
            report.add("AUD-051", f"recipe {named}: needs {error.need}; found {error.found}")
            continue
        if isinstance(recipe, dict):
            history.recipes[named] = recipe
        else:
            report.add("AUD-051", f"recipe {named} is no object")


def _check_sizes(history: History, report: Report) -> None:
    """Of approved documents; larger ones are not read."""
    for found in history.files.container.files("approvals/"):
        if found.size > APPROVAL_BYTES:
            report.add("AUD-080", f"{found.name} has {found.size} bytes, more than {APPROVAL_BYTES}")


def _read_contracts(history: History, report: Report) -> None:
    for named, data in _named(history, "contracts/", ".json"):
        try:
            history.contracts[named] = parse_contract(data)
        except IriaiError as error:
            report.add("AUD-050", f"{named}: {error.code}: needs {error.need}; found {error.found}")
    for named, data in _named(history, "contracts/", ".dsse"):
        if len(data) > _SIGNATURES_BYTES:
            report.add("AUD-050", f"signatures of {named}: {len(data)} bytes")
            continue
        try:
            history.signatures[named] = envelope_of(parse_envelope_json(data))
        except EncodingError as error:
            report.add("AUD-050", f"signatures of {named}: needs {error.need}; found {error.found}")


def checkpoint_lines(files: Files) -> Iterator[str]:
    """Notes of ``checkpoints.log``.

    Raises:
        EncodingError: A line that is not ``{"note": text}`` in canonical form.
    """
    for line in files.lines("checkpoints.log"):
        if line.endswith(b"\0"):
            raise EncodingError(need="whole lines", found="a cut one", remedy="export it again")
        one = parse_envelope_json(line)
        if not isinstance(one, dict) or set(one) != {"note"} or not isinstance(one["note"], str):
            raise EncodingError(need='{"note": text}', found="another line", remedy="export it again")
        yield one["note"]
