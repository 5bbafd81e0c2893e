# SPDX-License-Identifier: Apache-2.0
"""The first tables of the main database: the present, and the log with its triggers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0001"
down_revision = None
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


_APPEND_ONLY = ("log_entry", "log_envelope")


def upgrade() -> None:
    op.create_table(
        "contract_document",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("contract_id", sa.Text(), nullable=False),
        sa.Column("version", _INT, nullable=False),
        sa.Column("supersedes", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_contract_document")),
        sqlite_strict=True,
    )
    op.create_table(
        "decision",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("point", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_decision")),
        sqlite_strict=True,
    )
    op.create_table(
        "descriptor",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "dataset", name=op.f("pk_descriptor")),
        sqlite_strict=True,
    )
    op.create_table(
        "idempotency",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("idem", sa.Text(), nullable=False),
        sa.Column("body_digest", sa.Text(), nullable=False),
        sa.Column("status", _INT, nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "idem", name=op.f("pk_idempotency")),
        sqlite_strict=True,
    )
    op.create_table(
        "invite",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("legal_name", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), nullable=False),
        sa.Column("grp", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("expires_ms", _INT, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invite")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_invite_secret_sha256")),
        sqlite_strict=True,
    )
    op.create_table(
        "ledger_mirror",
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("round", _INT, autoincrement=False, nullable=False),
        sa.Column("attempt", _INT, autoincrement=False, nullable=False),
        sa.Column("plan_digest", sa.Text(), nullable=False),
        sa.Column("steps", _INT, nullable=False),
        sa.PrimaryKeyConstraint("party", "run_id", "round", "attempt", name=op.f("pk_ledger_mirror")),
        sqlite_strict=True,
    )
    op.create_table(
        "log_checkpoint",
        sa.Column("size", _INT, autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("published_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_checkpoint")),
        sqlite_strict=True,
    )
    op.create_table(
        "log_entry",
        sa.Column("idx", _INT, autoincrement=False, nullable=False),
        sa.Column("event_id", sa.LargeBinary(), nullable=False),
        sa.Column("req_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=True),
        sa.Column("run", sa.Text(), nullable=True),
        sa.Column("round", _INT, nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("ts_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("idx", name=op.f("pk_log_entry")),
        sa.UniqueConstraint("event_id", name=op.f("uq_log_entry_event_id")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_log_entry_run_round"), "log_entry", ["run", "round"], unique=False)
    op.create_index(op.f("ix_log_entry_type"), "log_entry", ["type"], unique=False)
    op.create_table(
        "log_envelope",
        sa.Column("idx", _INT, autoincrement=False, nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("seq", _INT, nullable=False),
        sa.Column("env", sa.LargeBinary(), nullable=False),
        sa.Column("signer", sa.Text(), nullable=False),
        sa.Column("seen_size", _INT, nullable=False),
        sa.Column("dsse", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("idx", name=op.f("pk_log_envelope")),
        sa.UniqueConstraint("chain", "seq", name=op.f("uq_log_envelope_chain_seq")),
        sqlite_strict=True,
    )
    op.create_table(
        "log_head",
        sa.Column("id", _INT, autoincrement=False, nullable=False),
        sa.Column("size", _INT, nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_head")),
        sqlite_strict=True,
    )
    op.create_table(
        "model",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("round", _INT, nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_model")),
        sqlite_strict=True,
    )
    op.create_table(
        "nonce",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("expires_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "nonce", name=op.f("pk_nonce")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_nonce_expires_ms"), "nonce", ["expires_ms"], unique=False)
    op.create_table(
        "operator",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_operator")),
        sqlite_strict=True,
    )
    op.create_table(
        "organisation",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("alias_key", sa.LargeBinary(), nullable=False),
        sa.Column("legal_name", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), nullable=False),
        sa.Column("grp", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("node_key", sa.Text(), nullable=False),
        sa.Column("fleet_key", sa.Text(), nullable=False),
        sa.Column("created_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("org_id", name=op.f("pk_organisation")),
        sa.UniqueConstraint("node_id", name=op.f("uq_organisation_node_id")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_organisation_node_key"), "organisation", ["node_key"], unique=False)
    op.create_table(
        "release",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("statement_digest", sa.Text(), nullable=True),
        sa.Column("at_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("model", "tier", name=op.f("pk_release")),
        sqlite_strict=True,
    )
    op.create_table(
        "statement",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_statement")),
        sqlite_strict=True,
    )
    op.create_table(
        "approval",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("subject_digest", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["organisation.org_id"], name=op.f("fk_approval_org_id")),
        sa.PrimaryKeyConstraint("org_id", "operator", name=op.f("pk_approval")),
        sqlite_strict=True,
    )
    op.create_table(
        "contract_annex",
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["contract"], ["contract_document.digest"], name=op.f("fk_contract_annex_contract")
        ),
        sa.PrimaryKeyConstraint("contract", "sha256", name=op.f("pk_contract_annex")),
        sqlite_strict=True,
    )
    op.create_table(
        "contract_signature",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("signature_b64", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["contract_document.digest"], name=op.f("fk_contract_signature_digest")
        ),
        sa.PrimaryKeyConstraint("digest", "party", "kind", name=op.f("pk_contract_signature")),
        sqlite_strict=True,
    )
    op.create_table(
        "run",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("recipe_digest", sa.Text(), nullable=False),
        sa.Column("recipe_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("round", _INT, nullable=False),
        sa.Column("steps", _INT, nullable=False),
        sa.Column("model_digest", sa.Text(), nullable=True),
        sa.Column("opened_ms", _INT, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["contract"], ["contract_document.digest"], name=op.f("fk_run_contract")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run")),
        sqlite_strict=True,
    )
    op.create_table(
        "candidate",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name=op.f("fk_candidate_run_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_candidate")),
        sqlite_strict=True,
    )
    op.create_table(
        "round",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("round", _INT, autoincrement=False, nullable=False),
        sa.Column("attempt", _INT, autoincrement=False, nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("accepted", _INT, nullable=False),
        sa.Column("refused", _INT, nullable=False),
        sa.Column("verdicts", sa.Text(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name=op.f("fk_round_run_id")),
        sa.PrimaryKeyConstraint("run_id", "round", "attempt", name=op.f("pk_round")),
        sqlite_strict=True,
    )
    op.create_table(
        "vote",
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("at_ms", _INT, nullable=False),
        sa.ForeignKeyConstraint(["candidate"], ["candidate.digest"], name=op.f("fk_vote_candidate")),
        sa.PrimaryKeyConstraint("candidate", "party", name=op.f("pk_vote")),
        sqlite_strict=True,
    )
    if op.get_bind().dialect.name == "sqlite":
        for table in _APPEND_ONLY:
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )
    else:
        op.execute(
            "CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        for table in _APPEND_ONLY:
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION append_only()"
            )
    head = sa.table("log_head", sa.column("id"), sa.column("size"), sa.column("frontier", sa.LargeBinary))
    op.execute(head.insert().values(id=1, size=0, frontier=b""))
