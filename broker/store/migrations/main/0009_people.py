# SPDX-License-Identifier: Apache-2.0
"""People, what they log in with, and where they are logged in. Whoever is an operator is a person already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main_0009"
down_revision = "main_0008"
branch_labels = None
depends_on = None

_OPERATORS = """
    INSERT INTO person (name, role, state)
    SELECT name, 'operator', CASE state WHEN 'active' THEN 'active' ELSE 'disabled' END FROM operator
"""


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=nullable)


def _of_person(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["person"], ["person.name"], name=op.f(f"fk_{table}_person"))


def upgrade() -> None:
    op.create_table(
        "person",
        _text("name"),
        _text("role"),
        _text("org", nullable=True),
        _text("lang", nullable=True),
        _text("state"),
        _text("issuer", nullable=True),
        _text("sub", nullable=True),
        _int("added_ms", nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_person")),
        sqlite_strict=True,
    )
    op.create_table(
        "credential",
        _text("id"),
        _text("person"),
        _text("kind"),
        _text("label"),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        _int("count"),
        _int("at_ms"),
        _int("used_ms", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credential")),
        _of_person("credential"),
        sqlite_strict=True,
    )
    op.create_table(
        "login_session",
        _text("id"),
        _text("person"),
        _text("how"),
        _text("agent"),
        _int("since_ms"),
        _int("seen_ms"),
        _int("stepped_ms", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_session")),
        _of_person("login_session"),
        sqlite_strict=True,
    )
    op.create_table(
        "login_link",
        _text("id"),
        _text("person"),
        _text("code", nullable=True),
        _text("made_by"),
        _int("expires_ms"),
        _int("used_ms", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_link")),
        _of_person("login_link"),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_credential_person"), "credential", ["person"])
    op.create_index(op.f("ix_login_session_person"), "login_session", ["person"])
    op.execute(_OPERATORS)
