# SPDX-License-Identifier: Apache-2.0
"""Every table of the broker, in three databases.

- ``main``: business rows and the log, changed in one transaction. ``private``: salts and confidential values,
  with a short backup life of its own. ``signer``: what was signed; never in a backup, which is how a restore
  is noticed.
- `organisation` to `statement` hold the present; `log_entry` and `log_envelope` hold what happened and are
  never updated or deleted (triggers refuse it, and on PostgreSQL the broker's role has no right to).
- Digests are text ``sha256:<hex>``, keys text ``ed25519:<hex>``, times integer milliseconds (``..._ms``),
  states words that the service which owns the table defines. ``bytes`` is the document as it was hashed or
  signed, never a re-serialisation.
- Types are those that STRICT tables of SQLite and PostgreSQL share: text, integer, bytes.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = [
    "APPEND_ONLY",
    "REFUSED",
    "access_grant",
    "approval",
    "auditor",
    "candidate",
    "certificate",
    "contract_annex",
    "contract_document",
    "contract_notice",
    "contract_signature",
    "credential",
    "decision",
    "descriptor",
    "dsp_agreement",
    "dsp_counterparty",
    "dsp_message",
    "dsp_negotiation",
    "idempotency",
    "invite",
    "lane",
    "lane_message",
    "last_signed",
    "ledger_mirror",
    "log_checkpoint",
    "log_cosignature",
    "log_entry",
    "log_envelope",
    "log_head",
    "log_private",
    "log_tile",
    "log_timestamp",
    "login_link",
    "login_session",
    "main",
    "model",
    "negotiation",
    "nonce",
    "operator",
    "organisation",
    "person",
    "private",
    "proposal",
    "release",
    "round_",
    "run",
    "signer",
    "signer_state",
    "statement",
    "vote",
    "witness",
]

APPEND_ONLY: Final = ("log_entry", "log_envelope")
REFUSED: Final = {
    "sqlite": """instr(body, CAST('"outcome":"refuse"' AS BLOB)) > 0""",
    "postgresql": """position('"outcome":"refuse"'::bytea in body) > 0""",
}
"""Which bodies are refusing decisions, by dialect: an index has these alone, and queries repeat the words.

The type is not among them: with it, an index of types would be taken instead, which has every decision.
"""
_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
main = MetaData(naming_convention=_NAMES)
private = MetaData(naming_convention=_NAMES)
signer = MetaData(naming_convention=_NAMES)

_Int = BigInteger().with_variant(Integer(), "sqlite")  # STRICT tables know INTEGER, not BIGINT


def _key_text(name: str, *foreign: ForeignKey) -> Column[str]:
    return Column(name, Text, *foreign, primary_key=True)


def _key_int(name: str) -> Column[int]:
    return Column(name, _Int, primary_key=True, autoincrement=False)


def _text(name: str, *foreign: ForeignKey) -> Column[str]:
    return Column(name, Text, *foreign, nullable=False)


def _maybe_text(name: str) -> Column[str]:
    return Column(name, Text, nullable=True)


def _int(name: str) -> Column[int]:
    return Column(name, _Int, nullable=False)


def _maybe_int(name: str) -> Column[int]:
    return Column(name, _Int, nullable=True)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def _table(name: str, metadata: MetaData, *parts: Column[str] | Column[int] | Column[bytes]) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True)


# membership
organisation = _table(
    "organisation",
    main,
    _key_text("org_id"),
    _bytes("alias_key"),
    _text("legal_name"),
    _text("country"),
    _maybe_text("grp"),
    _text("state"),
    _text("node_id"),
    _text("node_key"),
    _text("fleet_key"),
    _int("created_ms"),
)
invite = _table(
    "invite",
    main,
    _key_text("id"),
    _bytes("secret_sha256"),
    _text("legal_name"),
    _text("country"),
    _maybe_text("grp"),
    _text("state"),
    _int("expires_ms"),
    _text("created_by"),
)
approval = _table(
    "approval",
    main,
    _key_text("org_id", ForeignKey("organisation.org_id")),
    _key_text("operator"),
    _text("subject_digest"),
    _text("signature"),
    _int("at_ms"),
)
operator = _table("operator", main, _key_text("name"), _text("key"), _text("state"))
proposal = _table(
    "proposal",
    main,
    _key_text("id"),
    _text("kind"),
    _bytes("payload"),
    _bytes("subject"),
    _text("digest"),
    _text("proposer"),
    _text("state"),
    _int("created_ms"),
    _int("expires_ms"),
    _bytes("behind"),
    _maybe_text("decided_by"),
    _maybe_int("decided_ms"),
    _maybe_text("why"),
)
nonce = _table("nonce", main, _key_text("key_id"), _key_text("nonce"), _int("expires_ms"))
idempotency = _table(
    "idempotency",
    main,
    _key_text("key_id"),
    _key_text("idem"),
    _text("body_digest"),
    _int("status"),
    _bytes("response"),
    _maybe_int("at_ms"),  # of the answer; none once it is forgotten, and only the two keys are left
)

# people and their logins
person = _table(
    "person",
    main,
    _key_text("name"),
    _text("role"),
    _maybe_text("org"),
    _maybe_text("lang"),
    _text("state"),
    _maybe_text("issuer"),  # of the provider at which they log in, with their name there
    _maybe_text("sub"),
    _maybe_int("added_ms"),
)
credential = _table(
    "credential",
    main,
    _key_text("id"),
    _text("person", ForeignKey("person.name")),
    _text("kind"),  # passkey or password
    _text("label"),
    _bytes("key"),  # the passkey's public key (COSE), or the password's hash
    _int("count"),
    _int("at_ms"),
    _maybe_int("used_ms"),
)
login_session = _table(
    "login_session",
    main,
    _key_text("id"),  # digest of the token
    _text("person", ForeignKey("person.name")),
    _text("how"),
    _text("agent"),
    _int("since_ms"),
    _int("seen_ms"),
    _maybe_int("stepped_ms"),
    _maybe_text("stepped_by"),  # passkey or password
)
login_link = _table(
    "login_link",
    main,
    _key_text("id"),  # digest of the secret
    _text("person", ForeignKey("person.name")),
    _maybe_text("code"),  # digest of the second half, where somebody else hands it over
    _text("made_by"),
    _int("expires_ms"),
    _maybe_int("used_ms"),
)

# catalogue and contracts
descriptor = _table(
    "descriptor",
    main,
    _key_text("node_id"),
    _key_text("dataset"),
    _text("digest"),
    _bytes("bytes"),  # of one that was withdrawn: the withdrawal
    _text("shown"),  # open, fits, or withdrawn
    _text("signed_by"),
    _int("number"),  # of the publication; a node's later ones have higher numbers
)
certificate = _table(
    "certificate",
    main,
    _key_text("node_id"),
    _key_text("dataset"),
    _text("digest"),
    _bytes("bytes"),
    _text("signed_by"),
)
contract_document = _table(
    "contract_document",
    main,
    _key_text("digest"),
    _bytes("bytes"),
    _text("contract_id"),
    _int("version"),
    _maybe_text("supersedes"),
    _text("state"),
    _int("at_ms"),
)
contract_annex = _table(
    "contract_annex",
    main,
    _key_text("contract", ForeignKey("contract_document.digest")),
    _key_text("sha256"),
    _bytes("bytes"),
)
contract_signature = _table(
    "contract_signature",
    main,
    _key_text("digest", ForeignKey("contract_document.digest")),
    _key_text("party"),
    _key_text("kind"),
    _text("signature_b64"),
)
contract_notice = _table(
    "contract_notice",
    main,
    _key_text("digest"),
    _text("contract", ForeignKey("contract_document.digest")),
    _text("kind"),
    _text("party"),
    _int("seq"),
    _maybe_text("refers"),
    _bytes("bytes"),
    _int("at_ms"),
)
negotiation = _table(
    "negotiation",
    main,
    _key_text("id"),
    _text("contract_id"),
    _int("version"),
    _int("round"),
    _text("state"),
    _text("digest"),
    _bytes("pool"),
    _int("at_ms"),
)
lane = _table(
    "lane",
    main,
    _key_text("pid"),
    _text("negotiation", ForeignKey("negotiation.id")),
    _text("party"),
    _int("round"),
    _text("state"),
    _text("digest"),
    _maybe_int("deadline_ms"),
    _maybe_text("last_hash"),
)
lane_message = _table(
    "lane_message",
    main,
    _key_text("id"),
    _text("pid", ForeignKey("lane.pid")),
    _int("seq"),
    _text("sender"),
    _text("type"),
    _bytes("bytes"),
    _int("at_ms"),
)
decision = _table(
    "decision",
    main,
    _key_text("digest"),
    _text("contract"),
    _text("point"),
    _bytes("bytes"),
    _bytes("request"),
    _bytes("salt"),
    _bytes("state"),
)

# the facade for connectors of dataspaces
dsp_counterparty = _table(
    "dsp_counterparty",
    main,
    _key_text("name"),
    _text("participant"),
    _text("callback"),
    _maybe_text("org"),
    _text("token_sha256"),
    _text("state"),
    _int("at_ms"),
)
dsp_negotiation = _table(
    "dsp_negotiation",
    main,
    _key_text("provider_pid"),
    _text("consumer_pid"),
    _text("counterparty", ForeignKey("dsp_counterparty.name")),
    _text("contract", ForeignKey("contract_document.digest")),
    _text("offer"),
    _text("state"),
    _int("rounds"),
    _maybe_int("deadline_ms"),
    _int("at_ms"),
)
dsp_message = _table(
    "dsp_message",
    main,
    _key_text("provider_pid", ForeignKey("dsp_negotiation.provider_pid")),
    _key_int("seq"),
    _text("sender"),
    _text("type"),
    _bytes("bytes"),
    _int("at_ms"),
    _maybe_int("tried_ms"),
    _maybe_int("answer"),
)
dsp_agreement = _table(
    "dsp_agreement",
    main,
    _key_text("id"),
    _text("provider_pid", ForeignKey("dsp_negotiation.provider_pid")),
    _text("contract", ForeignKey("contract_document.digest")),
    _text("counterparty", ForeignKey("dsp_counterparty.name")),
    _bytes("bytes"),
    _int("at_ms"),
)

# runs
run = _table(
    "run",
    main,
    _key_text("run_id"),
    _text("contract", ForeignKey("contract_document.digest")),
    _text("recipe_digest"),
    _text("recipe_id"),
    _text("state"),
    _int("round"),
    _int("steps"),
    _maybe_text("model_digest"),
    _int("opened_ms"),
    _maybe_text("outcome"),
    _maybe_int("stop_ms"),  # when an operator asked for its end
    _maybe_text("start"),  # JSON: why it could not begin yet (`broker.federation.starting`)
    _maybe_text("error"),  # JSON: what it failed of
)
round_ = _table(
    "round",
    main,
    _key_text("run_id", ForeignKey("run.run_id")),
    _key_int("round"),
    _key_int("attempt"),
    _text("base"),
    _maybe_text("model"),
    _int("accepted"),
    _int("refused"),
    _text("verdicts"),
    _int("at_ms"),
    _maybe_text("reasons"),  # JSON: party to code, of everybody whose update is not in the model
    _maybe_int("held_up"),  # 1: without those who said no, too few groups were left
    _maybe_int("trained"),  # 0: nobody who was asked trained
    _maybe_int("unmasked"),  # 1: its sum may have been opened, so the round has no further attempt
)
model = _table(
    "model",
    main,
    _key_text("digest"),
    _maybe_text("run_id"),
    _maybe_int("round"),
    _text("kind"),
    _text("path"),
)
ledger_mirror = _table(
    "ledger_mirror",
    main,
    _key_text("party"),
    _key_text("run_id"),
    _key_int("round"),
    _key_int("attempt"),
    _text("plan_digest"),
    _int("steps"),
)

# release
candidate = _table(
    "candidate", main, _key_text("digest"), _text("run_id", ForeignKey("run.run_id")), _text("state")
)
vote = _table(
    "vote",
    main,
    _key_text("candidate", ForeignKey("candidate.digest")),
    _key_text("party"),
    _text("verdict"),
    _int("at_ms"),
)
release = _table(
    "release",
    main,
    _key_text("model"),
    _key_text("tier"),
    _text("contract"),
    _maybe_text("statement_digest"),
    _int("at_ms"),
)
statement = _table("statement", main, _key_text("digest"), _bytes("bytes"))

# the log
log_entry = _table(
    "log_entry",
    main,
    _key_int("idx"),
    _bytes("event_id"),
    _bytes("req_sha256"),
    _bytes("leaf_hash"),
    _bytes("body"),
    _text("type"),
    _maybe_text("scope"),
    _maybe_text("run"),
    _maybe_int("round"),
    _text("actor"),
    _int("ts_ms"),
)
log_envelope = _table(
    "log_envelope",
    main,
    _key_int("idx"),
    _text("chain"),
    _int("seq"),
    _bytes("env"),
    _text("signer"),
    _int("seen_size"),
    _bytes("dsse"),
)
log_head = _table("log_head", main, _key_int("id"), _int("size"), _bytes("frontier"))
log_checkpoint = _table(
    "log_checkpoint", main, _key_int("size"), _bytes("root"), _text("note"), _int("published_ms")
)
log_tile = _table("log_tile", main, _key_int("level"), _key_int("n"), _bytes("data"))
log_cosignature = _table(
    "log_cosignature", main, _key_int("size"), _key_text("witness"), _text("line"), _int("received_ms")
)
log_timestamp = _table("log_timestamp", main, _key_int("size"), _bytes("token"), _int("at_ms"))

# who witnesses and who audits
witness = _table(
    "witness",
    main,
    _key_text("name"),
    _text("org"),  # of a member, or the name of an auditor
    _text("vkey"),
    _bytes("statement"),  # the DSSE envelope in which the owner's pinned key names this key
    _text("state"),
    _int("at_ms"),
)
auditor = _table("auditor", main, _key_text("name"), _text("key"), _text("state"), _int("at_ms"))
access_grant = _table(
    "access_grant",
    main,
    _key_text("id"),
    _text("grantee", ForeignKey("auditor.name")),
    _text("fields"),  # JSON: names of confidential fields, or ["*"]
    _int("from_index"),
    _maybe_int("until_ms"),
    _text("state"),
    _int("at_ms"),
)

organisation.append_constraint(UniqueConstraint("node_id"))
invite.append_constraint(UniqueConstraint("secret_sha256"))
log_entry.append_constraint(UniqueConstraint("event_id"))
log_envelope.append_constraint(UniqueConstraint("chain", "seq"))
contract_notice.append_constraint(UniqueConstraint("contract", "party", "seq"))
lane.append_constraint(UniqueConstraint("negotiation", "party", "round"))
lane_message.append_constraint(UniqueConstraint("pid", "seq"))
dsp_negotiation.append_constraint(UniqueConstraint("counterparty", "consumer_pid"))
Index(None, nonce.c.expires_ms)
Index(None, idempotency.c.at_ms)
Index(None, organisation.c.node_key)
Index(None, log_entry.c.run, log_entry.c.round)
Index("ix_log_entry_run_type", log_entry.c.run, log_entry.c.type)
Index(
    "ix_log_entry_refused",
    log_entry.c.idx,
    sqlite_where=text(REFUSED["sqlite"]),
    postgresql_where=text(REFUSED["postgresql"]),
)
Index("ix_run_opened_ms_run_id", run.c.opened_ms, run.c.run_id)
Index("ix_run_outcome_contract", run.c.outcome, run.c.contract)
Index("ix_ledger_mirror_steps", ledger_mirror.c.run_id, ledger_mirror.c.party, ledger_mirror.c.steps)
Index("ix_log_entry_type", log_entry.c.type, log_entry.c.idx)
Index(None, credential.c.person)
Index(None, login_session.c.person)

# the two small databases
log_private = Table(
    "log_private",
    private,
    Column("event_id", LargeBinary, primary_key=True),
    _key_text("field"),
    _bytes("salt"),
    _bytes("value"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
last_signed = _table(
    "last_signed",
    signer,
    _key_text("origin"),
    _int("size"),
    _bytes("root"),
    _bytes("frontier"),
    _text("note"),
    _int("signed_ms"),
)
signer_state = _table(
    "state", signer, _key_text("origin"), _text("state"), _maybe_text("reason"), _maybe_text("evidence")
)
