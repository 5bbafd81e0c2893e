# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference from the code and `words.toml`.

python tests/docs/generate.py            writes the pages
python tests/docs/generate.py --check    exit 1 if one of them would change
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.docs import facts  # noqa: E402  the tree is on the path only now

REFERENCE = ROOT / "docs/reference"
NOTE = "<!-- Written by `python tests/docs/generate.py`; what it says comes from the code and tests/docs/words.toml. -->\n"
EXIT_CODES = (
    (0, "done"),
    (1, "our bug: report it"),
    (2, "the command line, a setting or a file name is wrong"),
    (3, "a check failed"),
    (4, "denied by policy: the contract, a budget, or a rule of the site"),
    (5, "the other end does not answer"),
    (6, "identity: a key, a signature, a certificate"),
    (7, "a person has to decide"),
    (75, "temporary: try again"),
)


def words() -> dict[str, dict[str, str]]:
    """What the code cannot say by itself."""
    return tomllib.loads((Path(__file__).parent / "words.toml").read_text("utf-8"))


def missing_words(said: dict[str, dict[str, str]] | None = None) -> list[str]:
    """What the code has and the words lack, or the reverse; one message each."""
    from policies.log.schema import REFUSALS, EntryType

    said = said or words()
    codes = {one.code for one in facts.errors()} | {"internal.error"}
    found = []
    for part, known in (
        ("remedies", codes),
        ("reasons", set(REFUSALS)),
        ("entries", {str(one) for one in EntryType}),
        ("settings", {one.key for one in facts.settings()}),
        ("environment", facts.environment_names()),
    ):
        found += [f"{name}: no words in [{part}]" for name in sorted(known - set(said[part]))]
        found += [
            f"{name}: words in [{part}], but nothing in the code" for name in sorted(set(said[part]) - known)
        ]
    return found


def cell(text: object) -> str:
    """Text that stays in its cell."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("``", "`")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell(one) for one in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    """Text in code quotes; nothing for nothing."""
    return f"`{text}`" if text else ""


# --- errors.md ---


def errors_page() -> str:
    """Every code: class, exit code, HTTP status, meaning, remedy."""
    from broker.federation.errors import FAILURES
    from policies.contract.words.remedies import REMEDIES
    from policies.verify.rules import LATER, RULES

    said = words()
    found = facts.errors()
    families: dict[str, list[facts.ErrorFact]] = {}
    for one in found:
        if one.own_code:
            families.setdefault(one.code.partition(".")[0], []).append(one)
    parts = [
        "# Codes of refusals\n",
        NOTE,
        (
            "Every refusal has a stable code, what was needed, what was found, and what to do; where the contract"
            " refused, also the clause. The same fields stand in the `--json` envelope and in the problem document"
            " (RFC 9457) of an HTTP answer. Codes are never renamed and never used for something else.\n"
        ),
        "## Exit codes\n",
        table(("Exit", "Means"), EXIT_CODES),
        (
            "`iriai-verify` uses 3 for a finding of severity error, 7 for review findings only, 6 if no log key or"
            " quorum of the policy holds, and 2 for a file that cannot be read.\n"
        ),
    ]
    for family in sorted(families):
        parts.append(f"## {family}\n")
        rows = [
            (
                code(one.code),
                one.exit_code,
                one.http_status,
                code(f"{one.module}.{one.name}"),
                one.words,
                said["remedies"][one.code],
            )
            for one in families[family]
        ]
        if family == "internal":
            rows.insert(
                0,
                (
                    code("internal.error"),
                    1,
                    500,
                    code("policies.errors.IriaiError"),
                    "Our bug; nothing of the exception is shown.",
                    said["remedies"]["internal.error"],
                ),
            )
        parts.append(table(("Code", "Exit", "HTTP", "Class", "Means", "What to do"), rows))
    parts += [
        "## What one node does in a round\n",
        (
            "These are no exceptions: they drop the reply of one node from one attempt, and the run goes on. They"
            " stand in the broker's own lines on standard error (`reply.failed`, `judge.failed`).\n"
        ),
        table(("Code", "Means"), [(code(name), text) for name, text in FAILURES.items()]),
        "## Why a submission does not count\n",
        "The closed list of reasons in a log entry `contribution.refused`.\n",
        table(("Reason", "Means"), [(code(name), text) for name, text in said["reasons"].items()]),
        "## What a clause's finding asks for\n",
        "A decision names, for each check of each clause: `need`, `found`, and one of these remedies.\n",
        table(("Remedy", "In words"), [(code(name), text) for name, (text, _) in REMEDIES.items()]),
        "## Rules of an audit\n",
        "`iriai-verify explain AUD-nnn` prints one of them.\n",
        table(
            ("Rule", "Severity", "Checks", "By hand"),
            [(name, one.severity, one.checks, one.by_hand) for name, one in RULES.items()],
        ),
    ]
    if LATER:
        parts += ["This version does not check:\n", table(("Rules", "What"), LATER)]
    return "\n".join(parts)


# --- cli.md ---


def cli_page() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# Commands\n",
        NOTE,
        (
            "People's text goes to standard error. `--json` puts exactly one envelope on standard output:"
            ' `{"schema":"1","status":"ok","data":…}` or `{"schema":"1","status":"error","error":{code,clause,need,found,remedy}}`.'
            " Without `--json`, a command that makes one thing to hand on (an invitation, a digest, a run id) prints it alone on"
            " standard output. Exit codes: [errors.md](errors.md).\n"
        ),
        (
            "Commands of `iriai-broker` other than `init`, `serve` and `operator new` are signed requests to the running broker: they"
            " need `--key`, and either `--dir` (on the broker's host) or `--url` with `--tls-sha256` (from elsewhere). Commands of"
            " `iriai-node` take the node's folder as `--dir`, else from `IRIAI_NODE_DIR`, else `iriai-node` in the working folder.\n"
        ),
    ]
    program = ""
    for one in facts.commands():
        if one.program != program:
            program = one.program
            parts.append(f"## {program}\n")
        parts.append(command_text(one))
    return "\n".join(parts)


def command_text(one: facts.Command) -> str:
    """One command."""
    needed = [f"{opt.names[0]} {opt.value}".strip() for opt in one.options if opt.required]
    usage = " ".join([one.line, *one.arguments, *needed])
    parts = [
        f"### {one.line}\n",
        one.words + "\n",
        f"```\n{usage}{' [OPTIONS]' if one.options else ''}\n```\n",
    ]
    if one.options:
        rows = [
            (
                code(" ".join((", ".join(opt.names), opt.value)).strip()),
                opt.words,
                "required" if opt.required else code(opt.default),
            )
            for opt in one.options
        ]
        parts.append(table(("Option", "What", "Default"), rows))
    return "\n".join(parts)


# --- entries.md ---

_BY = {"B": "broker", "M": "member", "MB": "member or broker", "A": "auditor"}


def entries_page() -> str:
    """Every entry type with its fields."""
    from policies.log.schema import SCHEMA

    said = words()["entries"]
    written = facts.written_types()
    head = ("Type", "Made by", "Means", "In clear", "Behind commitments")

    def rows(*, used: bool) -> list[tuple[str, str, str, str, str]]:
        return [
            (
                code(str(kind)),
                _BY[one.by],
                said[str(kind)],
                _fields(one.pub),
                _fields(one.sd, one.sd_optional),
            )
            for kind, one in SCHEMA.items()
            if (str(kind) in written) is used
        ]

    return "\n".join(
        [
            "# Entries of the log\n",
            NOTE,
            (
                "An entry is the RFC 8785 bytes of one object; its leaf hash is SHA-256 over `0x00` and these bytes. The list of types is"
                " closed: an unknown type or field is a finding. In clear stand only codes, digests, ids, aliases, whole numbers, decimals"
                " and minutes. Everything else stands as a salted commitment, `HMAC-SHA256(salt, field || 0x00 || canonical(value))`, which"
                " can be opened to an auditor and whose value can be erased. Every entry has the exact time `at` behind a commitment.\n"
            ),
            (
                "An alias is made from the organisation's alias key and the entry's scope, run and round: without that key nobody can"
                " follow one contributor from round to round.\n"
            ),
            "Made by: *broker* alone; *member*, with the member's own signed envelope behind it; or *auditor*.\n",
            "## Written by this version\n",
            table(head, rows(used=True)),
            "## Known, and written by a later version\n",
            "`iriai-verify` reads these too.\n",
            table(head, rows(used=False)),
        ]
    )


def _fields(*given: Any) -> str:
    sure, *perhaps = given
    texts = [f"`{name}` {kind.name}" for name, kind in sure.items()]
    texts += [f"`{name}` {kind.name}, optional" for more in perhaps for name, kind in more.items()]
    return "; ".join(texts) or "nothing"


# --- settings.md ---


def settings_page() -> str:
    """Every setting, environment variable and bound."""
    said = words()
    parts = [
        "# Settings and bounds\n",
        NOTE,
        (
            "One TOML file per program, in its own folder. A name that does not exist is an error, so that a misspelt rule never goes"
            " unnoticed. Secrets are files of mode 0600 in `keys/`, never settings.\n"
        ),
    ]
    heads = {
        ("broker.toml", ""): "## broker.toml\n\nIn the broker's folder; `iriai-broker init` writes it.\n",
        ("broker.toml", "dsp"): "### [dsp]: connectors of dataspaces\n\nOr one line, `dsp.enabled = true`.\n",
        (
            "node.toml",
            "",
        ): "## node.toml\n\nIn the node's folder; `iriai-node init` writes it. An environment variable"
        " `IRIAI_NODE__NAME` goes before the file, for the settings of this first table.\n",
        (
            "node.toml",
            "local",
        ): "### [local]: the site's own rules\n\nThey only tighten what the signed contract allows. What they"
        " refuse has the code `local.refused` and stays at home as to its reason. `epsilon_lifetime` is the"
        " owner's cap over the life of new data, beside every contract.\n",
    }
    for (file, name), head in heads.items():
        parts.append(head)
        parts.append(
            table(
                ("Name", "Kind", "Default", "What"),
                [
                    (
                        code(one.name),
                        one.kind,
                        one.default if one.default in {"required", "not set"} else code(one.default),
                        said["settings"][one.key],
                    )
                    for one in facts.settings()
                    if (one.file, one.table) == (file, name)
                ],
            )
        )
    parts += [
        "## Environment\n",
        table(("Variable", "What"), [(code(name), text) for name, text in said["environment"].items()]),
        "## Bounds\n",
        (
            "Every bound is a name in `policies/limits.py`, with its unit. None of them is a setting; a contract may tighten one, never"
            " loosen it.\n"
        ),
    ]
    group = ""
    rows: list[tuple[str, str, str]] = []
    for one in [*facts.bounds(), facts.Bound(group="", name="", value="", words="")]:
        if one.group != group and rows:
            parts += [f"### {group[:1].upper()}{group[1:]}\n", table(("Bound", "Value", "Why"), rows)]
            rows = []
        group = one.group
        rows.append((code(one.name), code(one.value.replace("_", "")), one.words))
    return "\n".join(parts)


# --- http-api.md ---


def http_page(given: list[Any] | None = None) -> str:
    """Every path on the public port."""
    found = facts.routes(given)
    bodies = [one for one in found if one.body is not None]
    parts = [
        "# HTTP: every path on the public port\n",
        NOTE,
        "One port, TLS 1.2 or newer. What is not in these tables answers 404.\n",
        (
            "Requests are signed (RFC 9421, Ed25519, tag `iriai-v1`) over method, authority, target and the digest of the body; changes"
            " also over their `Idempotency-Key`, which they must have. A signature lives 60 seconds, clocks may differ by 30, and a nonce"
            " is served once. The key decides who asks:\n"
        ),
        table(
            ("Role", "Whose key"),
            (
                ("anyone", "none needed"),
                ("invited", "the joining node's own, named in the body"),
                ("waiting", "an enrolled node's, approved or not"),
                ("member", "an active member's node"),
                ("operator", "an operator's"),
                ("party", "an active member's node or an operator; what it sees is decided by the contract"),
                ("auditor", "an enrolled auditor's"),
                ("assessor", "an auditor's or an operator's"),
                ("reader", "an active member's node, an auditor or an operator"),
                ("counterparty", "a registered connector's bearer token; only under `/api/v1/dsp`"),
            ),
        ),
        (
            "Bodies are JSON in canonical bytes (RFC 8785), at most 1 MiB; unknown names are refused. Refusals are"
            " `application/problem+json` (RFC 9457) with `code`, `clause`, `need`, `found`, `remedy`, and the `exit_code` that a command"
            " ends with; a 5xx also has a `request_id`. A 429 or 503 has `Retry-After`. What belongs to another answers 404, as if it were not"
            " there. The same `Idempotency-Key` with the same request gives the same answer and no second effect; with another request"
            " it is `request.idempotency-mismatch`. After 90 days the answer is forgotten, and the request is refused as"
            " `request.idempotency-old`: it is never done a second time.\n"
        ),
        (
            "**How often.** A key may send 100 requests a second, and 2000 at once; what proves nobody counts for its address (of IPv6"
            " its /64): 500 a second, 5000 at once. The static log has 500 a second, and 10,000 at once. More is `request.rate` (429); it"
            " costs nothing, and others do not wait for it. Beside that an address has 100 a second, 1000 at once, for requests with a"
            " signature, a token or a cookie, and 10 a second, 50 at once, for `/healthz` and `/readyz`. On a connection on which"
            " somebody proved themselves their further requests count for them, not for the address.\n"
        ),
        (
            "[openapi.json](openapi.json) says all of it for programs: parameters, bodies, answers, refusals"
            " (`iriai-broker openapi` prints it). A query parameter that a route does not name, or one twice, is"
            " `request.invalid`. `HEAD` works where `GET` does; another method is `request.method`, with `Allow`."
            " Within v1 changes only add: ignore names that you do not know. A route that will end says so with"
            " `Deprecation` and `Sunset`.\n"
        ),
        (
            "**Lists** take `limit` (1 to 1000) and `cursor`; while there is more, the answer has `next`, which is the"
            " `cursor` of the next page: opaque, and of no other list. What is added meanwhile moves no page. Runs,"
            " candidates and releases begin with the newest page. Entries, decisions and own envelopes go by the log's"
            " index instead: `after`, and `next` where to go on.\n"
        ),
        (
            "**ETag**: of an organisation, a negotiation, a contract's life, a proposal. A change that takes `If-Match` with"
            " it is `request.if-match` (412) when the state is another one now. It would be required (428) where a change"
            " overwrites what somebody else set: none does now. The body signs what it is about, or the act stops something.\n"
        ),
        "## The API\n",
        table(
            ("Method", "Path", "Role", "What"),
            [(code(one.method), code(one.path), one.role, one.words) for one in found],
        ),
        "## Bodies\n",
        "Changes that are not listed take a DSSE envelope as it is.\n",
    ]
    for one in bodies:
        parts.append(f"`{one.method} {one.path}`\n")
        parts.append(table(("Name", "Kind"), [(code(name), kind) for name, kind in (one.body or {}).items()]))
    parts += [
        "## Flower's fleet API\n",
        (
            "Protobuf, at most 8 MiB a message, with Flower's own node authentication under the fleet key that was enrolled. Flower's"
            " other APIs are not mounted: any other path below `/v1` answers 404 with an empty body.\n"
        ),
        table(
            ("Method", "Path", "Role"),
            [("`POST`", code(f"/v1/fleet/{name}"), "node") for name in facts.fleet_operations()],
        ),
    ]
    return "\n".join(parts)


def language_page() -> str:
    """The contract language: keys, values, where each kind of clause refuses, the linter's rules."""
    from tests.docs.language_page import sections

    parts = [
        "# The contract language\n",
        NOTE,
        (
            "`iriai-contract/1`: YAML for people, canonical JSON (RFC 8785) for signatures. Each clause has an id, `clause`,"
            " and `enforced_by`. Decimals, times and dates are quoted strings; whole numbers are plain; lists that are sets"
            " have no order. Templates: `iriai-broker contract new`; how to go on: [contract.md](../how-to/contract.md).\n"
        ),
    ]
    for title, said, tables in sections():
        parts += [f"## {title}\n", said + "\n", *(table(*one) for one in tables)]
    return "\n".join(parts)


def signal_map_page() -> str:
    """The signal map: every key with its kind and default, fields, units, rules, profiles."""
    from tests.docs.signal_map_page import sections

    parts = [
        "# The signal map\n",
        NOTE,
        (
            "`iriai-signalmap/1`, TOML: how a recording's columns become canonical fields in SI units. `iriai-node data inspect PATH"
            " --out map.toml` writes a proposal; how to go on: [data.md](../how-to/data.md). A map holds public constants only: one"
            " that asks for a statistic of the recordings is refused (`privacy.private-statistic`).\n"
        ),
        "```toml\n" + _example_map() + "```\n",
    ]
    for title, said, tables in sections():
        parts += [f"## {title}\n", said + "\n", *(table(*one) for one in tables)]
    return "\n".join(parts)


def _example_map() -> str:
    """The map of the how-to's example, as it is imported by its test."""
    return (ROOT / "docs/how-to/example/signalmap.toml").read_text("utf-8").rstrip("\n") + "\n"


def openapi_text() -> str:
    """The OpenAPI document."""
    from broker.api.document import document, text_of
    from broker.app import bare

    return text_of(document(bare()))


PAGES = {
    "cli.md": cli_page,
    "contract-language.md": language_page,
    "entries.md": entries_page,
    "errors.md": errors_page,
    "http-api.md": http_page,
    "openapi.json": openapi_text,
    "settings.md": settings_page,
    "signal-map.md": signal_map_page,
}


def main(argv: Sequence[str]) -> int:
    """Writes or compares all pages."""
    lacking = missing_words()
    if lacking:
        sys.stderr.write("\n".join(lacking) + "\n")
        return 1
    changed = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if not path.exists() or path.read_text("utf-8") != text:
            changed.append(name)
            if "--check" not in argv:
                path.write_text(text, "utf-8")
    sys.stderr.write(
        "".join(f"{'differs' if '--check' in argv else 'written'}: {name}\n" for name in changed)
    )
    return 1 if changed and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
