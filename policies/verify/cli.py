# SPDX-License-Identifier: Apache-2.0
"""``iriai-verify``: the auditor's command. Text for people on stderr; ``--json`` puts one envelope on stdout.

The envelope is ``{"schema":"1","status":"ok"|"error","data":...,"error":...}``: ``data`` is the report,
also where the verdict is an error; ``error`` is there whenever the exit code is not 0.

Exit codes: 0 no finding above note · 2 usage, or a file that cannot be read · 3 an error finding · 6 no log
key of the policy signed · 7 only review findings, or a member's view (``--grade member``), which is no audit.
"""

from __future__ import annotations

import argparse
import json
import mmap
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.encoding import b64, digest
from policies.errors import IriaiError
from policies.limits import BUNDLE_BYTES, BUNDLE_FILES, MODEL_BYTES
from policies.log.checkpoint import parse_policy
from policies.log.errors import AuditError, PolicyError, QuorumError
from policies.verify.reading import Unreadable, read_history
from policies.verify.report import Report, plain
from policies.verify.rules import RULES
from policies.verify.run import verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.log.checkpoint import Policy
    from policies.verify.history import History

__all__ = ["main"]

EXIT_USAGE = 2
_COMMANDS = ("verify", "show", "explain")
_HEX = re.compile(r"[0-9a-f]{64}\Z")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iriai-verify", description="Audit a bundle of an iriai log, offline."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    audit = commands.add_parser("verify", help="check everything in a bundle (the default command)")
    audit.add_argument("bundle", type=Path)
    audit.add_argument("--policy", type=Path, required=True, help="your own list of keys to trust")
    audit.add_argument("--receipts", type=Path, help="folder with .tlog-proof files that members kept")
    audit.add_argument(
        "--grade",
        choices=("auditor", "member"),
        default="auditor",
        help="member: look at one member's view; that is no audit, and the exit code is 7 at best",
    )
    audit.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        help="bytes of a model as downloaded: scores of its leak report are computed again (needs numpy); "
        "those of a recipe's start model: so are the models that opened sums give",
    )
    audit.add_argument(
        "--vectors",
        type=Path,
        help="folder of masked vectors, each named by the hex of its SHA-256: opened sums are redone",
    )
    audit.add_argument("--json", action="store_true", help="one JSON object on stdout")
    show = commands.add_parser("show", help="one entry: bytes, leaf hash, proof, envelope, disclosed fields")
    show.add_argument("bundle", type=Path)
    show.add_argument("index", type=int)
    show.add_argument("--policy", type=Path, required=True, help="your own list of keys to trust")
    explain = commands.add_parser("explain", help="what a rule checks, and how to redo it by hand")
    explain.add_argument("rule")
    return parser


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201  the command's output


def _read_bundle(path: Path) -> bytes:
    size = path.stat().st_size
    if size > BUNDLE_BYTES:
        raise PolicyError(
            need=f"a bundle of at most {BUNDLE_BYTES} bytes", found=str(size), remedy="check the path"
        )
    return path.read_bytes()


def _read_policy(path: Path) -> Policy:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(need="UTF-8 text", found="other bytes", remedy="check the path") from error
    return parse_policy(text)


def _read_receipts(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {}
    files = sorted(folder.rglob("*.tlog-proof"))
    if not files or len(files) > BUNDLE_FILES:
        raise PolicyError(
            need="a folder with .tlog-proof files", found=f"{len(files)} of them", remedy="check the path"
        )
    return {str(path.relative_to(folder)): path.read_bytes().decode("utf-8", "replace") for path in files}


def _read_models(paths: Sequence[Path]) -> dict[str, bytes]:
    models = {}
    for path in paths:
        if path.stat().st_size > MODEL_BYTES:
            raise PolicyError(
                need=f"a model of at most {MODEL_BYTES} bytes", found="more", remedy="check the path"
            )
        data = path.read_bytes()
        models[digest(data)] = data
    return models


def _read_vectors(folder: Path | None) -> dict[str, memoryview]:
    """Vectors by the digest in their name, mapped and not read: a run of them is larger than memory."""
    if folder is None:
        return {}
    files = [path for path in sorted(folder.iterdir()) if _HEX.match(path.name) and path.stat().st_size]
    if not files or len(files) > BUNDLE_FILES:
        raise PolicyError(
            need="a folder of masked vectors, named by their SHA-256",
            found=f"{len(files)} of them",
            remedy="ask the broker's operators for `iriai-broker audit vectors`",
        )
    return {f"sha256:{path.name}": memoryview(_mapped(path)) for path in files}


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _verify(options: argparse.Namespace) -> int:
    report = verify(
        _read_bundle(options.bundle),
        _read_policy(options.policy),
        receipts=_read_receipts(options.receipts),
        grade=options.grade,
        models=_read_models(options.model),
        vectors=_read_vectors(options.vectors),
    )
    _say(*report.lines())
    if options.json:
        _print_envelope(report.to_json(), _refusal(report))
    return report.exit_code


def _refusal(report: Report) -> IriaiError | None:
    if report.exit_code == 0:
        return None
    kind = AuditError if report.untrusted is None else QuorumError
    return kind(
        need="a history without findings, signed by a log key of the policy",
        found=report.verdict,
        remedy="redo the findings by hand; keep the bundle as evidence, ask members for their receipts",
    )


def _print_envelope(data: dict[str, Any] | None, error: IriaiError | None) -> None:
    envelope: dict[str, Any] = {"schema": "1", "status": "ok" if error is None else "error"}
    if data is not None:
        envelope["data"] = data
    if error is not None:
        envelope["error"] = error.as_dict()
    print(json.dumps(envelope, ensure_ascii=True, sort_keys=True))  # noqa: T201  the command's output


def _show(options: argparse.Namespace) -> int:
    report = Report()
    try:
        history = read_history(_read_bundle(options.bundle), _read_policy(options.policy), report)
    except Unreadable:
        _say(*report.lines())
        return report.exit_code
    if not 0 <= options.index < history.size:
        _say(f"entry {options.index}: the bundle has entries 0 to {history.size - 1}")
        return EXIT_USAGE
    _say(*_entry_lines(history, options.index))
    return report.exit_code


def _entry_lines(history: History, index: int) -> list[str]:
    entry = history.entries.get(index)
    lines = [
        f"entry     {index} of {history.size}",
        f"leaf      {history.tree.leaf(index).hex()}",
        f"root      {history.checkpoint.root.hex()}",
        *(f"proof     {b64(one)}" for one in history.tree.inclusion(index)),
    ]
    if entry is None:
        return [*lines, "body      not readable: see the findings of verify"]
    lines.append(f"body      {plain(entry.body.decode('utf-8'), limit=20_000)}")
    envelope: Any = history.envelopes.get(index)
    if envelope is not None:
        lines.append(f"envelope  {plain(envelope.to_bytes().decode('utf-8'), limit=40_000)}")
    for name, value in sorted(history.opened.get(index, {}).items()):
        lines.append(f"disclosed {plain(name)} = {plain(json.dumps(value), limit=4_000)}")
    receipt = history.files.get(f"receipts/{index}.tlog-proof")
    if receipt is not None:
        lines += [f"receipt   {plain(line)}" for line in receipt.decode("utf-8", "replace").split("\n")]
    return lines


def _explain(options: argparse.Namespace) -> int:
    rule = RULES.get(options.rule.upper())
    if rule is None:
        _say(f"no rule {plain(options.rule)} in this version; rules: " + " ".join(RULES))
        return EXIT_USAGE
    _say(f"{options.rule.upper()} ({rule.severity})", f"checks   {rule.checks}", f"by hand  {rule.by_hand}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; a bare ``iriai-verify BUNDLE ...`` means ``verify``.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] not in _COMMANDS and not words[0].startswith("-"):
        words.insert(0, "verify")
    options = _parser().parse_args(words)
    command = {"verify": _verify, "show": _show, "explain": _explain}[options.command]
    try:
        return command(options)
    except OSError as error:
        return _fail(
            options,
            PolicyError(
                need="a file that can be read",
                found=f"{error.filename}: {error.strerror}",
                remedy="check path and rights",
            ),
        )
    except IriaiError as error:
        return _fail(options, error)


def _fail(options: argparse.Namespace, error: IriaiError) -> int:
    _say(plain(str(error), limit=2_000))
    if getattr(options, "json", False):
        _print_envelope(None, error)
    return error.exit_code
