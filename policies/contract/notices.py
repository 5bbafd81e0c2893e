# SPDX-License-Identifier: Apache-2.0
"""Statements of one party about a contract in force: halt, resume, exit, rotate, attest, admit.

A notice is a DSSE envelope (payload type `NOTICE_TYPE`) over canonical bytes::

    {"schema":"iriai-notice/1","kind":..,"contract":digest,"party":short name,"seq":n,
     "at":"2027-03-01T08:00:00Z","code":reason code,"clause":id|null,"text":one line|null,
     "refers":digest|null,"choice":..|null,"subject":..|null}

- ``seq`` counts a party's notices about one contract, from 1, without gaps: one that is left out shows.
- ``refers`` is the digest of the halt that a resume ends. ``choice`` belongs to an exit. ``subject`` is the
  new key of a rotation, use and country of an attestation, the organisation that an admission is about, or
  the contributor that an exit is about where it is not the one who says it.
- The digest of a notice is that of its payload; signatures are not part of it.
- ``text`` is for people who may read the contract. It never enters the log, which holds digest, clause, code.
- ``keyid`` decides nothing: the key in force of the party is tried, the pinned one or the one that it rotated
  to. A rotation is signed by the new key as well, so that nobody claims a key that is not theirs.

What a notice changes, and whether its party may say it, is in `policies.contract.lifecycle`.

    envelope = seal_notice(notice, key)
    notice = open_notice(envelope, contract)        # raises unless the party's pinned key signed it
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from policies.contract.errors import NoticeMalformedError
from policies.contract.grammar import CLAUSE_ID, strange_character
from policies.encoding import canonical, digest, is_digest, parse
from policies.errors import EncodingError, SignatureInvalidError
from policies.identity import SigningKey, key_id, parse_key
from policies.limits import CONTRACT_SIGNATURES, INTEGER_MAX, NOTICE_BYTES, NOTICE_TEXT_CHARS
from policies.ports import to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from policies.contract.clauses import Contract, PartyClause

__all__ = [
    "CHOICES",
    "KINDS",
    "NOTICE_TYPE",
    "REASON_CODE",
    "SCHEMA",
    "Attestation",
    "Notice",
    "attestation_subject",
    "open_notice",
    "read_notice",
    "seal_notice",
]

Json = Any  # a JSON value

NOTICE_TYPE: Final = "application/vnd.iriai.notice.v1+json"
SCHEMA: Final = "iriai-notice/1"
KINDS: Final = ("admit", "attest", "exit", "halt", "resume", "rotate")
CHOICES: Final = ("discard", "retrain")
REASON_CODE: Final = r"[a-z][a-z0-9]*([.-][a-z0-9]+){0,7}"
_REMEDY = "make notices with iriai-node contract halt, resume or exit; send them unchanged"
_NOBODY: Mapping[str, str] = MappingProxyType({})
_TEXTS = {
    "party": re.compile(r"[a-z][a-z0-9-]{0,31}"),
    "at": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"),
    "code": re.compile(REASON_CODE),
}
_ORG = re.compile(r"org_[a-z2-7]{16}")
_ATTESTED = re.compile(r"use:(?P<use>[a-z][a-z0-9-]{0,63});country:(?P<country>[A-Z]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What a recipient says about its use of what it is given; ``notice`` is the digest of the statement."""

    use: str
    country: str
    notice: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One statement, read strictly. `open_notice` is the only way from a stranger's bytes to one.

    Attributes:
        kind: One of `KINDS`.
        contract: Digest of the contract.
        party: Short name in the contract.
        seq: Number among the party's notices about this contract, from 1.
        at: When it was made, by the maker's clock.
        code: Reason code.
        clause: Id of a clause of the contract that is the reason, or None.
        text: One line for people, or None.
        refers: Digest of the halt that a resume names; else None.
        choice: ``retrain`` or ``discard`` of an exit; else None.
        subject: New key, attestation or organisation id; None for halt and resume. Of an exit, the short name
            of an absent contributor; None if its party leaves itself.
    """

    kind: str
    contract: str
    party: str
    seq: int
    at: str
    code: str
    clause: str | None = None
    text: str | None = None
    refers: str | None = None
    choice: str | None = None
    subject: str | None = None

    @property
    def payload(self) -> bytes:
        """The canonical bytes that are signed."""
        return canonical({"schema": SCHEMA, **dataclasses.asdict(self)})

    @property
    def digest(self) -> str:
        """Digest of the payload: the notice's name."""
        return digest(self.payload)

    @property
    def attestation(self) -> Attestation | None:
        """What an attestation says; None for other kinds."""
        found = _ATTESTED.fullmatch(self.subject or "") if self.kind == "attest" else None
        if found is None:
            return None
        return Attestation(use=found["use"], country=found["country"], notice=self.digest, at=self.at)

    def to_json(self) -> dict[str, Json]:
        """The fields, and the digest, as screens and answers show them."""
        return {"digest": self.digest, **dataclasses.asdict(self)}


def attestation_subject(*, use: str, country: str) -> str:
    """Subject of an attestation.

    Args:
        use: One word in lower case, ``inspection``.
        country: ISO 3166-1 alpha-2.

    Raises:
        NoticeMalformedError: Another form.
    """
    subject = f"use:{use};country:{country}"
    if _ATTESTED.fullmatch(subject) is None:
        raise _malformed("a use in lower-case words joined by hyphens, and a country of two letters", subject)
    return subject


def seal_notice(notice: Notice, *keys: SigningKey) -> Envelope:
    """The notice's envelope, signed by its party's key; a rotation by the new key too.

    Raises:
        NoticeMalformedError: A field breaks its rule.
    """
    read_notice(notice.payload)
    return Envelope.seal(notice.payload, NOTICE_TYPE, *keys)


def read_notice(payload: bytes) -> Notice:
    """The notice behind canonical bytes. Says nothing about signatures: see `open_notice`.

    Raises:
        NoticeMalformedError: Too large, not canonical, another field, or a field that breaks its rule.
        WeakKeyError: The new key of a rotation proves nothing.
    """
    if len(payload) > NOTICE_BYTES:
        raise _malformed(f"at most {NOTICE_BYTES} bytes", f"{len(payload)} bytes")
    try:
        tree = parse(payload)
    except EncodingError as error:
        raise _malformed(error.need, error.found) from error
    names = {one.name for one in dataclasses.fields(Notice)}
    if not isinstance(tree, dict) or set(tree) != names | {"schema"} or tree["schema"] != SCHEMA:
        raise _malformed(f"schema {SCHEMA} with the fields " + " ".join(sorted(names)), "another document")
    del tree["schema"]
    _check_fields(tree)
    _check_kind(tree)
    return Notice(**tree)


def open_notice(
    envelope: Envelope,
    contract: Contract,
    *,
    rotated: Mapping[str, str] = _NOBODY,
    exited: Collection[str] = (),
) -> Notice:
    """The notice in an envelope, once it is about this contract and signed by who says it.

    1. payload type, size, number of signatures; 2. canonical bytes, exactly the fields, each by its rule;
    3. it is about this contract, by one of its parties, and names one of its clauses or none; 4. the key in
    force of the party signed it; a rotation is signed by the new key, and by the old one or by every other
    contributor, as the amendment clause says.

    Args:
        envelope: As it arrived.
        contract: That it should be about.
        rotated: Present key of each party that changed the pinned one, before this notice.
        exited: Contributors that have left; a rotation does not need their signature.

    Raises:
        NoticeMalformedError: Steps 1 to 3.
        SignatureInvalidError: Step 4.
        WeakKeyError: The new key of a rotation proves nothing.
    """
    # 1.
    if envelope.payload_type != NOTICE_TYPE:
        raise _malformed(f"payload type {NOTICE_TYPE}", envelope.payload_type)
    if not 0 < len(envelope.signatures) <= CONTRACT_SIGNATURES:
        raise _malformed(f"1 to {CONTRACT_SIGNATURES} signatures", str(len(envelope.signatures)))
    # 2.
    notice = read_notice(envelope.payload)
    # 3.
    party = _check_about(notice, contract)
    # 4.
    if notice.kind == "rotate":
        _check_rotation(envelope, contract, notice, rotated, exited)
    else:
        _require_signature(envelope, rotated.get(party.party, party.key))
    return notice


def _check_about(notice: Notice, contract: Contract) -> PartyClause:
    if notice.contract != contract.digest:
        raise _malformed(f"a notice about {contract.digest}", f"one about {notice.contract}")
    party = contract.party(notice.party)
    if party is None:
        raise _malformed("a party of the contract", notice.party)
    if notice.clause is not None and contract.clause(notice.clause) is None:
        raise _malformed("a clause of the contract, or null", notice.clause)
    return party


def _check_rotation(
    envelope: Envelope,
    contract: Contract,
    notice: Notice,
    rotated: Mapping[str, str],
    exited: Collection[str],
) -> None:
    """The new key signed, and who must agree to it."""
    _require_signature(envelope, str(notice.subject))
    present = {one.party: rotated.get(one.party, one.key) for one in contract.parties}
    by_old_key = contract.amendment.key_rotation == "by-old-key-or-all"
    if by_old_key and envelope.signed_by(parse_key(present[notice.party])):
        return
    others = [
        one.party for one in contract.contributors if one.party != notice.party and one.party not in exited
    ]
    missing = [name for name in others if not envelope.signed_by(parse_key(present[name]))]
    if missing or not others:
        raise SignatureInvalidError(
            need="a signature by the old key or by every other contributor"
            if by_old_key
            else "a signature by every other contributor",
            found="not signed by " + (" ".join(missing) or "anybody else"),
            remedy="sign the rotation with the old key; if it is lost, let all the others sign the statement",
            clause=contract.amendment.clause,
        )


def _require_signature(envelope: Envelope, key: str) -> None:
    raw = parse_key(key)
    if not envelope.signed_by(raw):
        raise SignatureInvalidError(
            need=f"a signature by {key_id(raw)}",
            found="another one",
            remedy="compare key fingerprints by another way; a party signs its own notices only",
        )


def _check_fields(tree: Mapping[str, Json]) -> None:
    """Every field by itself, whatever the kind."""
    if tree["kind"] not in KINDS:
        raise _malformed("a kind of " + " ".join(KINDS), tree["kind"])
    if not is_digest(tree["contract"]):
        raise _malformed("contract: sha256:<64 hex digits>", tree["contract"])
    for name, form in _TEXTS.items():
        if not isinstance(tree[name], str) or form.fullmatch(tree[name]) is None:
            raise _malformed(f"{name}: {form.pattern}", tree[name])
    try:
        to_ms(tree["at"])
    except (ValueError, OverflowError) as error:
        raise _malformed("at: a real date", tree["at"]) from error
    seq = tree["seq"]
    if isinstance(seq, bool) or not isinstance(seq, int) or not 1 <= seq <= INTEGER_MAX:
        raise _malformed("seq: a whole number from 1", seq)
    clause = tree["clause"]
    if clause is not None and (not isinstance(clause, str) or CLAUSE_ID.fullmatch(clause) is None):
        raise _malformed("clause: a clause id or null", clause)
    _check_text(tree["text"])


def _check_text(text: Json) -> None:
    if text is None:
        return
    if not isinstance(text, str) or not 0 < len(text) <= NOTICE_TEXT_CHARS:
        raise _malformed(f"text: 1 to {NOTICE_TEXT_CHARS} characters, or null", "another value")
    strange = strange_character(text)
    if strange is not None:
        raise _malformed("text: one line of visible characters", strange)


def _check_kind(tree: Mapping[str, Json]) -> None:
    """The three fields that belong to one kind each, and are null for the others."""
    kind, subject = tree["kind"], tree["subject"]
    if is_digest(tree["refers"]) != (kind == "resume") or (kind != "resume" and tree["refers"] is not None):
        raise _malformed("refers: the digest of a halt, for a resume and only there", tree["refers"])
    if (tree["choice"] in CHOICES) != (kind == "exit") or (kind != "exit" and tree["choice"] is not None):
        raise _malformed("choice: retrain or discard, for an exit and only there", tree["choice"])
    if kind in ("halt", "resume", "exit"):
        _check_leaver(kind, tree["party"], subject)
    elif not isinstance(subject, str):
        raise _malformed(f"subject: a text for {kind}", subject)
    elif kind == "rotate":
        parse_key(subject)
    elif kind == "attest":
        if _ATTESTED.fullmatch(subject) is None:
            raise _malformed("subject: use:<words>;country:<two letters>", subject)
    elif _ORG.fullmatch(subject) is None:
        raise _malformed("subject: an organisation id", subject)


def _check_leaver(kind: str, party: str, subject: Json) -> None:
    """Nobody, or who is absent and leaves by an exit of somebody else: another party, by its short name."""
    if subject is None:
        return
    if kind != "exit":
        raise _malformed(f"subject: null for {kind}", subject)
    if not isinstance(subject, str) or _TEXTS["party"].fullmatch(subject) is None or subject == party:
        raise _malformed("subject: the short name of another party, or null for exit", subject)


def _malformed(need: str, found: object) -> NoticeMalformedError:
    return NoticeMalformedError(need=need, found=ascii(found)[:120], remedy=_REMEDY)
