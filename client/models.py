# SPDX-License-Identifier: Apache-2.0
"""Released models at home: fetched, checked, kept; trained on at home by the worker.

::

    models/<64 hex>/weights.f32   little-endian float32, one flat vector in the order of the recipe's manifest
    models/<64 hex>/statement.dsse   what the broker signed about its privacy
    models/<64 hex>/model.json    model, tier, contract, recipe, statement, when
    models/individual-<64 hex>/   the same for an individual model, beside the model that it came from;
                                  with how it was chosen: mode, units that selected and reported, losses

`pull`, in this order; nothing is kept before all of it holds:
1. the broker lists the model as released under a contract that this node signed;
2. this node's own evaluation of the contract lets it have the model in that tier: by the times that the
   broker tells, which an auditor finds in the log, and by its own clock, country and attestation;
3. the privacy statement is signed by the broker's pinned key, is about this model, contract, recipe and run,
   its claims rest on the recipe's plan, and every figure and the verdict are the ones that follow from them;
4. the bytes have the digest that was asked for, and the length of the recipe's manifest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from client.answers import Answer, plain, short, table
from client.contract.notices import Notices
from client.errors import DigestMismatchError, NoSuchThingError, PeerUnreachableError, PersonaliseError
from client.settings import write_durably
from policies.contract import Deliver, evaluate
from policies.encoding import digest, digest_of, is_digest
from policies.errors import EncodingError, IriaiError, SignatureInvalidError
from policies.identity import key_text
from policies.limits import MODEL_BYTES, PERSONALISE_S, REPORT_UNITS
from policies.ports import iso_s
from policies.privacy.statement import PAYLOAD_TYPE, check_statement, verdict
from policies.robustness.plan import votes_plan
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from client.settings import Home
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = [
    "Compared",
    "Mode",
    "Tuning",
    "holds_own",
    "individual_facts",
    "is_individual",
    "keep_individual",
    "model_folder",
    "model_here",
    "models_list",
    "personalise",
    "pull",
    "read_model",
]

STATEMENT_TYPE = PAYLOAD_TYPE
NO_ATTESTATION = "none"
_FLOAT = np.dtype("<f4")
_SHORT_CHARS = 12  # of a digest's hex digits
Mode = Literal["full", "head"]  # what is trained on: every tensor, or those of the head


@dataclass(slots=True)
class _Sink:
    """Collects a download in memory: a recipe's model is at most a few megabytes."""

    data: bytearray

    def write(self, data: bytes, /) -> int:
        self.data += data
        return len(data)


def model_folder(home: Home, model: str, *, individual: bool = False) -> Path:
    """Where a model lies, or will.

    Raises:
        NoSuchThingError: It is no digest.
    """
    if not is_digest(model):
        raise NoSuchThingError(
            need="sha256: and 64 hex digits", found=ascii(model)[:80], remedy="iriai-node models list"
        )
    return home.models / (("individual-" if individual else "") + model.removeprefix("sha256:"))


def model_here(home: Home, name: str) -> str:
    """The whole digest of a model that is here.

    Args:
        home: The node's folder.
        name: The digest, or its first 12 hex digits or more, with or without ``sha256:``.

    Raises:
        NoSuchThingError: None is meant, or several.
    """
    try:
        folders = [one.name for one in home.models.iterdir()]
    except OSError:
        folders = []
    return _whole(name, ["sha256:" + one for one in folders])


def _whole(name: str, known: Sequence[str]) -> str:
    """The one digest that a name stands for; a whole digest stands for itself, known or not."""
    if is_digest(name):
        return name
    start = name.removeprefix("sha256:")
    found = {one for one in known if is_digest(one) and one.removeprefix("sha256:").startswith(start)}
    if len(start) < _SHORT_CHARS or len(found) != 1:
        raise NoSuchThingError(
            need=f"a digest, or its first {_SHORT_CHARS} hex digits, of one model",
            found=f"{plain(name)[:80]}, of {len(found) or 'none'}",
            remedy="iriai-node models list shows their digests",
        )
    return found.pop()


def _releases(member: Member) -> list[dict[str, Any]]:
    answer = member.client.get("/releases")
    rows = answer.get("releases", []) if isinstance(answer, dict) else answer
    return [one for one in rows if isinstance(one, dict)]


def models_list(member: Member) -> Answer:
    """Released models of this node's contracts, and which of them are here.

    While the broker is away, those that are here are listed, and then it is said that it is away.
    """
    away: PeerUnreachableError | None = None
    try:
        rows = _releases(member)
    except PeerUnreachableError as error:
        rows, away = list(_held_here(member.home)), error
    for one in rows:
        one["here"] = (model_folder(member.home, one["model"]) / "model.json").exists()
        one["individual"] = is_individual(member.home, one["model"])
    lines = table(
        ("model", "tier", "recipe", "run", "here", "individual"),
        [
            (
                one["model"],
                one["tier"],
                one.get("recipe_id") or short(one["recipe"]),
                one["run"],
                "yes" if one["here"] else "no",
                "yes" if one["individual"] else "no",
            )
            for one in rows
        ],
    )
    if away is not None:
        words = "this is what is held here" if rows else "no model is held here"
        return Answer(
            data={"models": rows, "broker_away": True},
            text=(*lines, f"the broker is away: {words}"),
            error=away,
        )
    if not rows:
        lines = ("no release yet: iriai-node release list shows what waits at the gate",)
    return Answer(data={"models": rows, "broker_away": False}, text=lines)


def _held_here(home: Home) -> Iterator[dict[str, Any]]:
    """What `pull` wrote down of each model that is here; a file of another form is left out."""
    for path in sorted(home.models.glob("*/model.json")):
        if path.parent.name.startswith("individual-"):
            continue
        try:
            told = json.loads(path.read_bytes())
            found = {name: str(told[name]) for name in ("model", "tier", "contract", "recipe", "run")}
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if is_digest(found["model"]):
            yield found


def pull(member: Member, shelf: ContractShelf, model: str) -> Answer:
    """Fetches a released model; see the module for the order of checks.

    Raises:
        NoSuchThingError: No release of this model for this node.
        RefusedError: The contract does not let this node have it.
        SignatureInvalidError: The statement is not the broker's.
        DigestMismatchError: Other bytes.
        RemoteRefusalError: The broker refuses; the clause is named.
    """
    # 1.
    rows = _releases(member)
    model = _whole(model, [str(one.get("model")) for one in rows])
    folder = model_folder(member.home, model)
    row = next((one for one in rows if one["model"] == model), None)
    if row is None:
        raise NoSuchThingError(
            need="a released model",
            found=short(model),
            remedy="iriai-node models list; a vetoed one is never released",
        )
    held, recipe = shelf.get(row["contract"]), shelf.recipe(row["contract"], row["recipe"])
    # 2.
    state = Notices(shelf).state(held, iso_s(member.clock.now_ms()))
    evaluate(held.contract, state, _asked(member, shelf, held, row)).require()
    # 3.
    statement, signed = _statement(member, row, held.contract, recipe)
    found_verdict = verdict(statement["contributors"])
    # 4.
    sink = _Sink(bytearray())
    size = recipe.parameters * _FLOAT.itemsize
    found = member.client.download(f"/models/{model}/weights", sink, most_bytes=min(MODEL_BYTES, size))
    if found != model or len(sink.data) != size:
        raise DigestMismatchError(
            need=f"{size} bytes of {model}",
            found=f"{len(sink.data)} bytes of {found}",
            remedy="pull again; if it repeats, report it to the other members",
        )
    facts = {
        "model": model,
        "tier": row["tier"],
        "contract": row["contract"],
        "recipe": row["recipe"],
        "run": row["run"],
        "statement": row["statement"],
        "verdict": found_verdict,
        "pulled_ms": member.clock.now_ms(),
    }
    write_durably(folder / "weights.f32", bytes(sink.data))
    write_durably(folder / "statement.json", json.dumps(statement, sort_keys=True).encode())
    write_durably(folder / "statement.dsse", signed)
    write_durably(folder / "model.json", json.dumps(facts, sort_keys=True).encode())
    return Answer(
        data={**facts, "file": str(folder / "weights.f32")},
        text=(
            f"model      {model}",
            f"tier       {plain(row['tier'])}",
            f"statement  {found_verdict}",
            f"next: iriai-node models personalise {model} --dir {member.home.root}",
        ),
    )


def _asked(member: Member, shelf: ContractShelf, held: Held, row: dict[str, Any]) -> Deliver:
    """What this node asks its own copy of the contract before it takes a model."""
    party = held.party
    try:
        said = Notices(shelf).life(held).attested.get(party.party)
        attestation = NO_ATTESTATION if said is None else said.notice
    except IriaiError:  # the notices are lost: nothing is known, and refuses
        attestation = None
    return Deliver(
        party=party.party,
        key=key_text(member.identity.key.public),
        model=row["model"],
        recipe_digest=row["recipe"],
        tier=row["tier"],
        released=True,
        released_at=_time(row, "at_ms"),
        made_at=_time(row, "made_ms"),
        country=party.country,
        attestation=attestation,
        contribution_share=None,
    )


def _time(row: dict[str, Any], name: str) -> str | None:
    """A time that the broker tells; None for anything that is none."""
    told = row.get(name)
    try:
        return iso_s(told) if isinstance(told, int) else None
    except (ValueError, OverflowError, OSError):
        return None


def _statement(
    member: Member, row: dict[str, Any], contract: Contract, recipe: Recipe
) -> tuple[dict[str, Any], bytes]:
    """The privacy statement of a release, and its signed bytes.

    It is the broker's, about this release, and follows from itself.

    Raises:
        DigestMismatchError: Other bytes, or about another model, contract, recipe, run, plan or term.
        SignatureInvalidError: Not the broker's.
        StatementError: A figure or the verdict is not the one that follows from the plans.
    """
    name = row["statement"]
    data = member.client.get_bytes(f"/statements/{name}")
    if digest(data) != name:
        raise DigestMismatchError(need=name, found=digest(data), remedy="report it to the operator")
    try:
        document = Envelope.from_bytes(data).open_as(STATEMENT_TYPE, member.broker.key)
    except EncodingError as error:
        raise SignatureInvalidError(
            need="a privacy statement signed by the broker",
            found="another form",
            remedy="report it to the operator",
        ) from error
    check_statement(document)
    plan = None if recipe.plan is None else recipe.plan.digest
    plans = {None if one["plan"] is None else one["plan"]["digest"] for one in document["contributors"]}
    votes = votes_plan(contract.validation, recipe.evaluation.document)
    judged = document["evaluation"]["votes"]
    wanted = {
        **{name: row[name] for name in ("model", "contract", "recipe", "run")},
        "plan": str(plan),
        "evaluation": recipe.evaluation.digest,
        "votes": str(None if votes is None else digest_of(votes)),
        "secure_aggregation": contract.aggregation.secure_aggregation,
        "reply_slot_ms": contract.privacy.reply_slot_ms or 0,
        "seed_set": None if recipe.start is None else recipe.start.seed_set,
    }
    said = {
        **document["subject"],
        **document["terms"],
        "plan": " ".join(sorted(map(str, plans))),
        "evaluation": document["evaluation"]["plan"]["digest"],
        "votes": str(None if judged is None else judged["digest"]),
    }
    for name, value in wanted.items():
        if said[name] != value:
            raise DigestMismatchError(
                need=f"a statement about this {name}, {short(str(value))}",
                found=f"one about {ascii(said[name])[:80]}",
                remedy="report it to the operator; do not rely on this model",
            )
    found: dict[str, Any] = document
    return found, data


def read_model(home: Home, model: str, *, individual: bool = False) -> tuple[dict[str, Any], np.ndarray]:
    """What is known of a model that is here, and its weights ``[P] float32``.

    Raises:
        NoSuchThingError: It was not pulled.
        DigestMismatchError: The file was changed.
    """
    folder = model_folder(home, model, individual=individual)
    try:
        facts: dict[str, Any] = json.loads((folder / "model.json").read_bytes())
        data = (folder / "weights.f32").read_bytes()
    except FileNotFoundError as error:
        raise NoSuchThingError(
            need="a model that is here", found=short(model), remedy=f"iriai-node models pull {model}"
        ) from error
    wanted = facts["individual"] if individual else model
    if digest(data) != wanted:
        raise DigestMismatchError(need=wanted, found=digest(data), remedy="pull the model again")
    return facts, np.frombuffer(data, dtype=_FLOAT)


def is_individual(home: Home, model: str) -> bool:
    """Whether a training here left another model than the released one, which it may not have beaten.

    A file that cannot be read counts as one: who packages it is told what is wrong with it.

    Raises:
        NoSuchThingError: It is no digest.
    """
    try:
        facts = json.loads((model_folder(home, model, individual=True) / "model.json").read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return holds_own(facts)


def holds_own(facts: dict[str, Any]) -> bool:
    """Whether a model that was kept after training holds what this site's data taught it.

    The bytes decide: of a recipe with private tensors even the common model has stem and head of this site.
    """
    return bool(facts["individual"] != facts["model"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The other individual model, of the two that a second training left: how it was made, and its loss.

    Attributes:
        mode: How it was made.
        loss: On the units that report; None where there is none.
    """

    mode: Mode
    loss: float | None

    def facts(self) -> dict[str, Any]:
        """As it stands beside the model that stayed."""
        return {"mode": self.mode, "held_out_loss": _decimal(self.loss)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How an individual model came about; stays on the site.

    Attributes:
        mode: ``full``, or ``head``: only the last layer was trained on.
        improved: Whether it was better on the units that select; else the common model is kept.
        selection_units: Held-out units that chose: common, or one of the ways to train on.
        selection: Their mean loss under the common and the kept model.
        report_units: The other held-out units, which chose nothing.
        report: Their mean loss likewise; None where no unit is left for it.
        compared: The individual model that was here before, if there was one and it was looked at.
    """

    mode: Mode
    improved: bool
    selection_units: int
    selection: tuple[float, float] | None
    report_units: int
    report: tuple[float, float] | None
    compared: Compared | None = None

    def facts(self) -> dict[str, Any]:
        """What is kept beside the model."""
        before, after = self.report or (None, None)
        gain = (before - after) / before if before and after is not None else None
        return {
            "mode": self.mode,
            "kept": "individual" if self.improved else "common",
            "selection_units": self.selection_units,
            "selection_loss_common": _decimal(self.selection[0] if self.selection else None),
            "selection_loss": _decimal(self.selection[1] if self.selection else None),
            "report_units": self.report_units,
            "held_out_loss_common": _decimal(before),
            "held_out_loss": _decimal(after),
            "gain": _decimal(gain),
            "warnings": _warnings(gain, self.report_units),
            "compared": None if self.compared is None else self.compared.facts(),
            "stayed": False,
        }


def individual_facts(known: dict[str, Any], other: Compared, *, stayed: bool) -> dict[str, Any]:
    """What is told of an individual model that is here, beside the other one that it was compared with."""
    return {"warnings": [], **known, "compared": other.facts(), "stayed": stayed}


def _warnings(gain: float | None, units: int) -> list[str]:
    if gain is None or units >= REPORT_UNITS:
        return []
    plural = "" if units == 1 else "s"
    measured = f"the gain is measured on {units} held-out unit{plural}"
    return [f"{measured}: with fewer than {REPORT_UNITS} it may be chance; record more attempts"]


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"


def keep_individual(
    home: Home, pulled: dict[str, Any], weights: np.ndarray, tuning: Tuning
) -> dict[str, Any]:
    """Stores an individual model beside the one that it came from; gives what is known of it.

    Its tier is ``private``: it holds what this site's data taught it.
    """
    folder = model_folder(home, pulled["model"], individual=True)
    data = np.ascontiguousarray(weights, dtype=_FLOAT).tobytes()
    facts = {
        **pulled,
        **tuning.facts(),
        "tier": "private",
        "individual": digest(data),
        "file": str(folder / "weights.f32"),
    }
    write_durably(folder / "weights.f32", data)
    write_durably(folder / "model.json", json.dumps(facts, sort_keys=True).encode())
    return facts


def personalise(home: Home, model: str, *, mode: Mode = "full", replace: bool = False) -> Answer:
    """Trains a pulled model on at home, in a worker process, and keeps the best: common, earlier or new.

    With ``replace`` the earlier individual model is not asked.

    Nothing of it leaves: the worker opens no connection and no outbox (`client.personalising`).

    Raises:
        NoSuchThingError: It was not pulled.
        PersonaliseError: The worker ended without a result.
    """
    model = model_here(home, model)
    read_model(home, model)
    command = [sys.executable, "-m", "client.node", *home.options]
    command += ["--personalise", model, "--mode", mode, *(("--replace",) if replace else ())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PERSONALISE_S, check=False)  # noqa: S603
        facts = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        facts = None
    if facts is None:
        raise PersonaliseError(
            need="an individual model",
            found="a process that ended without one",
            remedy=f"see its own words: {' '.join(command[1:])}",
        )
    return Answer(data=facts, text=_told(facts))


def _told(facts: dict[str, Any]) -> tuple[str, ...]:
    """What a person reads: chosen by some units, reported on others."""
    if facts["report_units"]:
        change = "" if facts["gain"] is None else f": {100 * float(facts['gain']):+.1f} % better"
        figure = f"{facts['held_out_loss_common']} before, {facts['held_out_loss']} after{change}"
    else:
        figure = "UNDETERMINED: a second held-out unit is needed, one that did not choose"
    own = holds_own(facts)
    return (
        f"kept       {facts['kept']} model{_how(facts)}",
        f"chosen by  {facts['selection_units']} held-out units",
        f"loss       {figure}, on {facts['report_units']} other held-out units",
        *_compared(facts),
        *(f"WARNING    {one}" for one in facts["warnings"]),
        f"file       {facts['file']}",
        "note       it contains what this site's data taught it: do not pass it on"
        if own
        else f"next: iriai-node models package {facts['model']} --out FILE, without --individual",
    )


def _how(facts: dict[str, Any]) -> str:
    """How the kept model was made, or why it is the common one."""
    if facts["kept"] == "individual":
        return f", mode {facts['mode']}"
    return ": no training here beat it" if facts["stayed"] else f": mode {facts['mode']} did not beat it"


def _compared(facts: dict[str, Any]) -> tuple[str, ...]:
    """What a person reads of the other individual model, if there is one."""
    other = facts["compared"]
    if other is None:
        return ()
    loss = other["held_out_loss"] or "UNDETERMINED"
    if facts["stayed"]:
        earlier = f"the earlier individual model, mode {facts['mode']}: it is not worse"
        return (
            f"stayed     {earlier if facts['kept'] == 'individual' else 'the common model: it is not worse'}",
            f"not kept   the new one, mode {other['mode']}: {loss} on the same units; --replace keeps it",
        )
    return (f"replaced   the earlier individual model, mode {other['mode']}: {loss} on the same units",)
