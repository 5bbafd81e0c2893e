# SPDX-License-Identifier: Apache-2.0
"""``iriai-verify``: the auditor's program. Text for people on stderr; ``--json`` puts one envelope on stdout.

The envelope is ``{"schema":"1","status":"ok"|"error","data":...,"error":...}``. What each command does is
in `policies.verify.commands`.

Exit codes: 0 no finding above note · 1 our bug · 2 usage, or a file that cannot be read · 3 an error
finding · 5 a log that a witness asks does not answer · 6 no log key or quorum of the policy holds · 7 only
review findings, something that could not be compared, or a member's view (``--grade member``), which is no
audit · 130 Ctrl-C: no verdict.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from policies.errors import IriaiError
from policies.verify.commands.answers import fail
from policies.verify.concluding import CONCLUSIONS
from policies.verify.errors import BrokenError, InputError
from policies.verify.report import plain
from policies.verify.sampling import SAMPLE
from policies.verify.words import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_COMMANDS = {
    "verify": "audit.run",
    "show": "look.show",
    "sample": "look.sample",
    "explain": "explain.run",
    "receipt": "receipt.run",
    "compare-checkpoints": "compare.run",
    "conclude": "conclude.run",
    "key": "conclude.key",
    "witness": "witness.run",
    "reconcile": "reconcile.run",
}
"""Module and function of `policies.verify.commands` for each command; a module is loaded when needed."""

_INTERRUPTED = 130
_POLICY = "your own list of keys to trust"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iriai-verify", description="Audit a bundle of an iriai log, offline."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    audit = commands.add_parser("verify", help="check everything in a bundle (the default command)")
    _add_audit(audit)
    _add_outputs(audit)
    _add_looks(commands)
    _add_notes(commands)
    _add_conclusion(commands)
    _add_witness(commands)
    _add_reconcile(commands)
    return parser


def _add_audit(parser: argparse.ArgumentParser) -> None:
    """What an audit rests on; ``verify`` and ``conclude`` share it."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--policy", type=Path, required=True, help=_POLICY)
    parser.add_argument("--since", type=Path, help="note of the checkpoint that the audit before ended with")
    parser.add_argument("--receipts", type=Path, help="folder with .tlog-proof files that members kept")
    parser.add_argument(
        "--as-of", help="when you look at it, like 2026-12-05T10:04:00Z: how old may the newest quorum be"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that work at the same time; without it as many as there are processors",
    )
    parser.add_argument(
        "--grade",
        choices=("auditor", "member"),
        default="auditor",
        help="member: look at one member's view; that is no audit, and the exit code is 7 at best",
    )
    parser.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        help="bytes of a model as downloaded: scores of its leak report are computed again (needs numpy); "
        "those of a recipe's start model: so are the models that opened sums give",
    )
    parser.add_argument(
        "--vectors",
        type=Path,
        help="folder of masked vectors, each named by the hex of its SHA-256: opened sums are redone",
    )
    _add_answers(parser)


def _add_answers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="language of texts for people")


def _add_sample(parser: argparse.ArgumentParser, option: str, most: int | None, seed: str | None) -> None:
    parser.add_argument(option, type=int, default=most, help=f"how many entries are drawn ({SAMPLE})")
    parser.add_argument(
        "--seed", default=seed, help="your own text, drawn with: told after the bundle was made"
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", type=Path, help="writes one HTML page without script or external parts")
    parser.add_argument(
        "--csv", type=Path, help="folder for tables: entries, findings, epsilon, operator actions"
    )
    parser.add_argument(
        "--controls", type=Path, help="your own mapping of controls to rules, instead of ours"
    )
    _add_sample(parser, "--sample", None, None)  # of the page: None where nobody asked


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--policy", type=Path, required=True, help=_POLICY)


def _add_looks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    show = commands.add_parser("show", help="one entry: bytes, leaf hash, proof, envelope, disclosed fields")
    _add_bundle(show)
    show.add_argument("index", type=int)
    _add_answers(show)
    sample = commands.add_parser("sample", help="a work paper of entries that the broker could not choose")
    _add_bundle(sample)
    _add_sample(sample, "--n", SAMPLE, "")
    sample.add_argument("--type", help="only entries of this type")
    sample.add_argument("--round", type=int, help="only entries of this round")
    _add_answers(sample)
    explain = commands.add_parser(
        "explain", help="a rule and how to redo it, an entry type, an entry in prose"
    )
    explain.add_argument("what", help="AUD-nnn, an entry type, or the index of an entry")
    explain.add_argument("bundle", type=Path, nargs="?")
    explain.add_argument("--policy", type=Path, help=_POLICY)
    _add_answers(explain)


def _add_reconcile(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    reconcile = commands.add_parser("reconcile", help="the broker's tables against the log, both directions")
    _add_bundle(reconcile)
    source = reconcile.add_mutually_exclusive_group(required=True)
    source.add_argument("--db", help="sqlite:PATH of the broker's database or folder; or sqlite:MAIN,PRIVATE")
    source.add_argument("--rows", type=Path, help="folder that `iriai-broker audit rows` wrote")
    _add_answers(reconcile)


def _add_notes(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    receipt = commands.add_parser("receipt", help="what one .tlog-proof proves")
    receipt.add_argument("file", type=Path)
    receipt.add_argument("--policy", type=Path, required=True, help=_POLICY)
    receipt.add_argument("--entry", type=Path, help="bytes of the entry that it is for")
    receipt.add_argument(
        "--grade", choices=("signed", "witnessed"), default="signed", help="the least that you accept"
    )
    _add_answers(receipt)
    compare = commands.add_parser(
        "compare-checkpoints", help="can these notes all be true? writes evidence if not"
    )
    compare.add_argument("notes", type=Path, nargs="+")
    compare.add_argument("--bundle", type=Path, help="compares notes of other sizes too")
    compare.add_argument("--policy", type=Path, required=True, help=_POLICY)
    compare.add_argument(
        "--out", type=Path, default=Path("equivocation.proof"), help="where evidence is written"
    )
    _add_answers(compare)


def _add_conclusion(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    conclude = commands.add_parser("conclude", help="audit again and sign the conclusion, for the log")
    _add_audit(conclude)
    conclude.add_argument("--key", type=Path, required=True, help="your enrolled key (PEM, mode 0600)")
    conclude.add_argument("--conclusion", choices=CONCLUSIONS, required=True, help="no better than the audit")
    conclude.add_argument("--out", type=Path, required=True, help="where the signed conclusion is written")
    key = commands.add_parser("key", help="your key as the broker's operator enrols it; made on first use")
    key.add_argument("file", type=Path)
    _add_answers(key)


def _add_witness(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    witness = commands.add_parser("witness", help="your own witness: cosigns what extends what it cosigned")
    witness.add_argument("--policy", type=Path, required=True, help=_POLICY)
    witness.add_argument("--name", default="auditor", help="your name, as the broker enrolled it")
    witness.add_argument("--dir", type=Path, default=Path("iriai-witness"), help="its key and its state")
    way = witness.add_mutually_exclusive_group()
    way.add_argument("--listen", help="HOST:PORT; logs call")
    way.add_argument("--pull", help="https://HOST:PORT of the broker, which is asked")
    witness.add_argument("--tls-sha256", help="SHA-256 of the broker's certificate, from its operator")
    witness.add_argument("--origin", help="which log of your policy, if it lists several")
    witness.add_argument("--once", action="store_true", help="with --pull: ask once and end")
    witness.add_argument("--key", type=Path, help="your enrolled key, for --statement")
    witness.add_argument("--statement", type=Path, help="writes whose witness this is, for the operator")


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    module, _, function = _COMMANDS[name].partition(".")
    found: Callable[[argparse.Namespace], int] = getattr(
        import_module(f"policies.verify.commands.{module}"), function
    )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; a bare ``iriai-verify BUNDLE ...`` means ``verify``.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] not in _COMMANDS and not words[0].startswith("-"):
        words.insert(0, "verify")
    options = _parser().parse_args(words)
    try:
        return _command(options.command)(options)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: there is no verdict\n")
        return _INTERRUPTED
    except OSError as error:
        return fail(
            options,
            InputError(
                need="a file that can be read or written",
                found=plain(f"{error.filename}: {error.strerror}"),
                remedy="check path and rights",
            ),
        )
    except IriaiError as error:
        return fail(options, error)
    except Exception as error:  # noqa: BLE001  whatever a bundle holds, an answer of one form comes
        return fail(options, _broken(error))


def _broken(error: Exception) -> BrokenError:
    """An exception that nobody expected, in one line: what, and where."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return BrokenError(
        need="an end of this command, whatever it reads",
        found=plain(f"{type(error).__name__}{where}: {error}", limit=600),
        remedy="there is no verdict; report it, with the bundle if you may",
    )
