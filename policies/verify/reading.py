# SPDX-License-Identifier: Apache-2.0
"""Steps 1 to 3 of the verifier: from the bytes of a bundle to a history that later rules can work on.

`Unreadable` ends the audit: what is left would mean nothing. Everything else is a finding, and reading goes
on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.contract.clauses import parse as parse_contract
from policies.encoding import canonical, digest, parse, unb64
from policies.errors import EncodingError, IriaiError
from policies.log.bundle import (
    FORMAT,
    TILE,
    DecisionRecord,
    manifest_of,
    split_tile,
    tile_name,
    tile_names,
    unpack,
)
from policies.log.checkpoint import open_checkpoint, parse_checkpoint, parse_note
from policies.log.entries import ALIAS_KEY_BYTES, SALT_BYTES, check_entry, commitment
from policies.log.errors import BodyTooLargeError, BundleError, EntryError, NoteError, QuorumError
from policies.log.kinds import DIGEST, ID, VERSION
from policies.log.merkle import MemoryTree, leaf_hash
from policies.signing import Envelope, parse_envelope_json
from policies.verify.history import History

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.log.checkpoint import Checkpoint, Policy
    from policies.verify.report import Report

__all__ = ["Unreadable", "read_history"]

Json = Any
_GRADES = ("auditor", "member")
_REQUIRED = ("BUNDLE", "MANIFEST", "checkpoint", "checkpoints.log", "policy", "keys/aliases.json")
_BUNDLE_FIELDS = {"format", "grade", "origin", "size", "software", "v"}


class Unreadable(Exception):  # noqa: N818  not an error of ours: the report says what was found
    """The audit cannot go on; the report has the finding."""


def read_history(data: bytes, policy: Policy, report: Report, *, grade: str | None = None) -> History:
    """The history in a bundle.

    Args:
        data: The bundle.
        policy: The auditor's own.
        report: Gets the findings.
        grade: What the auditor asked for; it decides, and a bundle of another grade is a finding. None takes
            the bundle's word, which nobody signed: for looking at entries, never for a verdict.

    Raises:
        Unreadable: The container, the versions or the checkpoint do not hold.
    """
    files = _container(data, report)
    checkpoint = _checkpoint(files["checkpoint"], policy, report)
    told = _header(files["BUNDLE"], checkpoint, report)
    if grade is not None and told != grade:
        report.add("AUD-004", f"a bundle of grade {told}, yet grade {grade} is asked for")
    history = History(policy=policy, checkpoint=checkpoint, grade=grade or told, files=files)
    _read_entries(history, report)
    _read_aliases(history, report)
    _read_documents(history, report)
    _read_packs(history, report)
    return history


def _container(data: bytes, report: Report) -> dict[str, bytes]:
    try:
        files = unpack(data)
    except BundleError as error:
        report.add("AUD-001", f"needs {error.need}; found {error.found}")
        raise Unreadable from error
    missing = [name for name in _REQUIRED if name not in files]
    if missing:
        report.add("AUD-002", "missing " + " ".join(missing))
        raise Unreadable
    if files["MANIFEST"] != manifest_of(files):
        report.add("AUD-003", _manifest_difference(files))
    return files


def _manifest_difference(files: Mapping[str, bytes]) -> str:
    try:
        listed = parse(files["MANIFEST"])["files"]
        wrong = [name for name in files if name != "MANIFEST" and listed.get(name) != digest(files[name])]
    except (EncodingError, TypeError, KeyError, AttributeError):
        return "MANIFEST is not the canonical list of the other files"
    return " ".join(wrong[:5]) or "MANIFEST lists other files"


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
        checkpoint = open_checkpoint(_text(data), policy.logs)
    except NoteError as error:
        report.add("AUD-011", f"checkpoint: needs {error.need}; found {error.found}")
        raise Unreadable from error
    except QuorumError as error:
        report.untrusted = f"needs {error.need}; found {error.found}"
        raise Unreadable from error
    report.origin, report.size, report.root = checkpoint.origin, checkpoint.size, checkpoint.root.hex()
    return checkpoint


def _header(data: bytes, checkpoint: Checkpoint, report: Report) -> str:
    """The grade, if `BUNDLE` is one that this tool knows."""
    try:
        head = parse(data)
    except EncodingError as error:
        report.add("AUD-004", f"BUNDLE: needs {error.need}; found {error.found}")
        raise Unreadable from error
    if not isinstance(head, dict) or set(head) != _BUNDLE_FIELDS:
        report.add("AUD-004", "BUNDLE has other fields")
        raise Unreadable
    known = (head["format"], head["v"]) == (FORMAT, 1) and isinstance(head["v"], int)
    if not known or head["grade"] not in _GRADES or not VERSION.holds(head["software"]):
        report.add("AUD-004", f"BUNDLE: {head['format']} {head['v']} {head['grade']} {head['software']}")
        raise Unreadable
    if (head["origin"], head["size"]) != (checkpoint.origin, checkpoint.size):
        report.add("AUD-004", f"BUNDLE says {head['origin']} of size {head['size']}")
    return str(head["grade"])


def _read_entries(history: History, report: Report) -> None:
    """Bytes, root and entries, in this order: 1. the tiles of the size; 2. framing; 3. root; 4. each body."""
    expected = tile_names(history.size)
    found = {name for name in history.files if name.startswith("tile/entries/")}
    if found != set(expected):
        report.add("AUD-002", "entry tiles: " + " ".join(sorted(found ^ set(expected))[:5]))
        raise Unreadable
    bodies: list[bytes] = []
    for name, (start, end) in expected.items():
        try:
            bodies += split_tile(history.files[name], end - start)
        except BundleError as error:
            report.add("AUD-022", f"{name}: needs {error.need}; found {error.found}")
            raise Unreadable from error
    history.tree = MemoryTree(leaf_hash(body) for body in bodies)
    if history.tree.root() != history.checkpoint.root:
        report.add(
            "AUD-020", f"recomputed {history.tree.root().hex()}, signed {history.checkpoint.root.hex()}"
        )
    for index, body in enumerate(bodies):
        try:
            history.entries[index] = check_entry(body)
        except (EncodingError, BodyTooLargeError) as error:
            report.add("AUD-030", f"needs {error.need}; found {error.found}", index=index)
        except EntryError as error:
            report.add("AUD-031", f"needs {error.need}; found {error.found}", index=index)


def _read_aliases(history: History, report: Report) -> None:
    try:
        table = parse(history.files["keys/aliases.json"])
        keys = {org: unb64(text) for org, text in table.items()}
        strict = canonical(table) == history.files["keys/aliases.json"]
    except (EncodingError, AttributeError) as error:
        report.add("AUD-049", f"keys/aliases.json: {type(error).__name__}")
        return
    wrong = [org for org, key in keys.items() if not ID.holds(org) or len(key) != ALIAS_KEY_BYTES]
    if wrong or not strict or len(set(keys.values())) != len(keys):
        report.add("AUD-049", "keys/aliases.json: one key of 32 bytes per organisation, no two the same")
    history.aliases = {org: key for org, key in keys.items() if org not in wrong}


def _named(history: History, folder: str, suffix: str) -> Iterator[tuple[str, bytes]]:
    for name, data in history.files.items():
        if name.startswith(folder) and name.endswith(suffix):
            yield "sha256:" + name.removeprefix(folder).removesuffix(suffix), data


def _read_documents(history: History, report: Report) -> None:
    """Contracts, signatures, recipes, consents, statements: each is the bytes that its name says."""
    rules = {
        "contracts/": "AUD-050",
        "annexes/": "AUD-051",
        "consents/": "AUD-068",
        "statements/": "AUD-071",
    }
    for folder, rule in rules.items():
        for named, data in _named(history, folder, ".json"):
            if digest(data) != named:
                report.add(rule, f"{folder}{named}: the bytes have digest {digest(data)}")
    _read_contracts(history, report)
    for named, data in _named(history, "annexes/", ".json"):
        try:
            recipe = parse(data)
        except EncodingError as error:
            report.add("AUD-051", f"recipe {named}: needs {error.need}; found {error.found}")
            continue
        if isinstance(recipe, dict):
            history.recipes[named] = recipe
        else:
            report.add("AUD-051", f"recipe {named} is no object")


def _read_contracts(history: History, report: Report) -> None:
    for named, data in _named(history, "contracts/", ".json"):
        try:
            history.contracts[named] = parse_contract(data)
        except IriaiError as error:
            report.add("AUD-050", f"{named}: {error.code}: needs {error.need}; found {error.found}")
    for named, data in _named(history, "contracts/", ".dsse"):
        try:
            history.signatures[named] = _envelope(parse_envelope_json(data))
        except EncodingError as error:
            report.add("AUD-050", f"signatures of {named}: needs {error.need}; found {error.found}")


def _envelope(obj: Json) -> Envelope:
    """An envelope in its one spelling.

    Raises:
        EncodingError: Other keys, or base64 in another spelling.
    """
    envelope = Envelope.from_json(obj)
    if envelope.to_json() != obj:
        raise EncodingError(need="standard base64", found="another spelling", remedy="send it unchanged")
    return envelope


def _lines(history: History, folder: str, rule: str, report: Report) -> Iterator[tuple[int, dict[str, Json]]]:
    """Lines of a pack, by entry index: ascending, in the pack of the entry's tile, canonical."""
    for name, data in history.files.items():
        if not name.startswith(f"{folder}/"):
            continue
        last = ("", -1, "")
        for line in data.split(b"\n")[:-1]:
            try:
                one = parse_envelope_json(line) if folder == "envelopes" else parse(line)
                index = one["index"]
                place = (name, index, str(one.get("field", "")))
                fits = f"{folder}/{tile_name(index // TILE)}.jsonl" == name and 0 <= index < history.size
                ordered = place > last
            except (EncodingError, TypeError, KeyError, AttributeError) as error:
                report.add(rule, f"{name}: {type(error).__name__}")
                continue
            if not fits or not ordered:
                report.add(rule, f"{name}: line of entry {index} out of place")
                continue
            last = place
            yield index, one
        if not data.endswith(b"\n"):
            report.add(rule, f"{name}: no whole lines")


def _read_packs(history: History, report: Report) -> None:
    for index, one in _lines(history, "envelopes", "AUD-040", report):
        if set(one) != {"envelope", "index"}:
            report.add("AUD-040", "the line has other keys", index=index)
            continue
        try:
            history.envelopes[index] = _envelope(one["envelope"])
        except EncodingError as error:
            report.add("AUD-040", f"needs {error.need}; found {error.found}", index=index)
    for index, one in _lines(history, "decisions", "AUD-059", report):
        record = _decision(index, one)
        if record is None:
            report.add("AUD-059", "the record has other fields", index=index)
        else:
            history.decisions[index] = record
    for index, one in _lines(history, "disclosures", "AUD-082", report):
        _disclosure(history, index, one, report)


def _salt(text: Json) -> bytes | None:
    """Bytes of 32 lower-case hex digits, or None."""
    if not isinstance(text, str) or len(text) != 2 * SALT_BYTES:
        return None
    try:
        salt = bytes.fromhex(text)
    except ValueError:
        return None
    return salt if salt.hex() == text else None


def _decision(index: int, one: dict[str, Json]) -> DecisionRecord | None:
    if set(one) != {"decision", "index", "request", "salt", "state"} or not DIGEST.holds(one["decision"]):
        return None
    salt = _salt(one["salt"])
    if salt is None:
        return None
    return DecisionRecord(
        index=index, decision=one["decision"], request=one["request"], state=one["state"], salt=salt
    )


def _disclosure(history: History, index: int, one: dict[str, Json], report: Report) -> None:
    entry = history.entries.get(index)
    if entry is None:
        return
    salt = _salt(one.get("salt"))
    if set(one) != {"field", "index", "salt", "value"} or salt is None or one["field"] not in entry.sd:
        report.add("AUD-082", "a disclosure of a field that the entry does not have", index=index)
        return
    name, kind = one["field"], entry.schema.sd_kind(one["field"])
    if commitment(salt, name, one["value"]) != entry.sd[name]:
        report.add("AUD-082", f"{name}: the value does not open the commitment", index=index)
    elif kind is None or not kind.holds(one["value"]):
        report.add("AUD-031", f"{name}: not {kind.name if kind else 'a field'}", index=index)
    else:
        history.opened[index][name] = one["value"]


def checkpoint_lines(data: bytes) -> Iterator[str]:
    """Notes of ``checkpoints.log``.

    Raises:
        EncodingError: A line that is not ``{"note": text}`` in canonical form.
    """
    for line in data.split(b"\n")[:-1]:
        one = parse_envelope_json(line)
        if not isinstance(one, dict) or set(one) != {"note"} or not isinstance(one["note"], str):
            raise EncodingError(need='{"note": text}', found="another line", remedy="export it again")
        yield one["note"]
    if data and not data.endswith(b"\n"):
        raise EncodingError(need="whole lines", found="a cut one", remedy="export it again")
