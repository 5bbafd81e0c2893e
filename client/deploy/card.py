# SPDX-License-Identifier: Apache-2.0
"""``MODEL_CARD.md``: what a person must know before the model moves anything.

Every sentence follows from the manifest, the privacy statement and the measurement; nothing is invented, and
what is not known is said: "not measured", "not stated". The same facts give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["model_card"]

Json = dict[str, Any]
_NONE: Final = "not measured"
_ADVICE: Final = (
    "What this model answers is **advice to a controller that keeps its own safety functions**. It is no "
    "safety function and is part of none. Limits, speed and force supervision, emergency stop and protective "
    "fields stay in the controller and are never taken from here."
)
_INDIVIDUAL: Final = (
    "**Individual: contains this site's data, do not pass on.** It was trained on with recordings of one "
    "site; the privacy statement below is about the common model that it began with, not about those."
)
_UNTESTED: Final = (
    "other robots, tools, parts or workspaces than those of the training data",
    "people in the workspace",
    "wear, temperature, light or network conditions other than those recorded",
    "behaviour over more than one episode, and long unattended operation",
    "inputs outside the limits above: the guards around the model refuse them",
)


def model_card(
    manifest: Mapping[str, Any],
    statement: Mapping[str, Any],
    latency: Mapping[str, Any],
    *,
    kind: str,
    defaults: bool,
) -> bytes:
    """UTF-8 bytes of the card.

    Args:
        manifest: Document of the manifest; ``members`` may still be missing.
        statement: The privacy statement.
        latency: The measurement.
        kind: ``kind`` of the recipe's task.
        defaults: Whether the numbers of the guards are the program's, because the recipe states none.
    """
    model = manifest["model"]
    parts = [
        f"# {model['id']}",
        _ADVICE,
        *([_INDIVIDUAL] if model["individual"] else []),
        "## What it is\n\n" + _table(("", ""), _identity(manifest, kind)),
        "## Inputs and outputs\n\n" + _ports(manifest),
        "## What it may do\n\n" + _safety(manifest, defaults=defaults),
        "## Data\n\n" + _data(manifest),
        "## How good it is\n\n" + _evaluation(manifest["evaluation"]),
        "## Privacy\n\n" + _privacy(manifest, statement),
        "## Speed\n\n" + _speed(latency),
        "## What was not tested\n\n" + "\n".join(f"- {one}" for one in _UNTESTED),
        "## Licence and use\n\n" + _licence(manifest["licence"]),
    ]
    return ("\n\n".join(parts) + "\n").encode("utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(one) for one in line) + " |" for line in lines)


def _cell(text: object) -> str:
    """Text of another party cannot end a cell or a line."""
    return " ".join(str(text).replace("|", "/").split())


def _identity(manifest: Mapping[str, Any], kind: str) -> list[tuple[str, str]]:
    model, lineage, log = manifest["model"], manifest["lineage"], manifest["lineage"]["log"]
    return [
        ("task", f"{manifest['task']} ({kind})"),
        ("robots", manifest["embodiment"]["class"]),
        ("model", model["digest"]),
        ("made from", model["parent"] or "-"),
        ("tier", model["tier"]),
        ("contract", lineage["contract"]),
        ("recipe", lineage["recipe"]),
        ("run", lineage["run"]),
        ("log", _log(log, individual=model["individual"])),
    ]


def _log(place: Json | None, *, individual: bool) -> str:
    if not individual:
        return "ask the log for the run: an entry of this site's own would tell which vote was its own"
    if place is None:
        return "this site holds no receipt of the run"
    seen = f"root {place['root'][:16]}… at size {place['size']}"
    return f"{place['kind']} at {place['index']} of {place['origin']}, {seen}"


def _ports(manifest: Mapping[str, Any]) -> str:
    """One line for each field; an interval that all coordinates share is written once."""
    rows = []
    for side in ("inputs", "outputs"):
        for port in manifest[side]:
            ends = sorted({f"{low} … {high}" for low, high in zip(port["low"], port["high"], strict=True)})
            shown = (
                ends
                if len(ends) == 1
                else [f"{a} … {b}" for a, b in zip(port["low"], port["high"], strict=True)]
            )
            rows.append((side[:-1], port["name"], port["shape"][0], port["unit"], "; ".join(shown)))
    return _table(("", "field", "values", "unit", "limits"), rows)


def _safety(manifest: Mapping[str, Any], *, defaults: bool) -> str:
    safety = manifest["safety"]
    adapter = manifest["embodiment"]["adapter"]
    ends = (
        "Observations and actions are in the order and sense of this site's controller."
        if adapter
        else "Observations and actions are in SI units, in the order and sense of the store."
    )
    return "\n".join(
        (
            f"- A chunk holds {manifest['horizon']} actions, of which {manifest['execute']} are run.",
            "- Actions are clamped to the limits above, inside the graph.",
            f"- From tick to tick an action changes by at most {', '.join(safety['max_delta_per_tick'])}.",
            f"- An observation older than {safety['watchdog_ms']} ms: the fallback `{safety['fallback']}`.",
            f"- So do features beyond the normaliser's clip, above a share of {safety['ood']['max']}.",
            f"- {ends}",
            *(
                ["- The recipe states no limits of its own: these are the program's defaults."]
                if defaults
                else []
            ),
        )
    )


def _data(manifest: Mapping[str, Any]) -> str:
    seed = manifest["lineage"]["seed_set"]
    own = " and then of this site alone" if manifest["model"]["individual"] else ""
    fields = ", ".join(f"`{port['name']}`" for side in ("inputs", "outputs") for port in manifest[side])
    return (
        f"Recordings of robots of class {manifest['embodiment']['class']} at the sites of the contract's "
        f"parties{own}: the fields {fields}, and nothing else. How many there were is not stated; no "
        f"recording and no statistic of one is in this package. "
        + (
            f"Training began at openly donated episodes, {seed}."
            if seed
            else "No openly donated episodes were used."
        )
    )


def _evaluation(evaluation: Json | None) -> str:
    if evaluation is None:
        rows = [("local (before)", _NONE, _NONE), ("common or individual (after)", _NONE, _NONE)]
        return _table(("model", "own cell", "other cells"), rows)
    rows = [(one["model"], _figure(one["own"]), _figure(one["others"])) for one in evaluation["rows"]]
    told = {one["model"] for one in evaluation["rows"]}
    if "local" not in told:
        rows.insert(0, ("local (before)", _NONE, _NONE))
    head = f"{evaluation['metric']}; {evaluation['better']} is better.\n\n"
    return head + _table(("model", "own cell", "other cells"), rows)


def _figure(figure: Json | None) -> str:
    if figure is None:
        return _NONE
    ends = f" ({figure['low']} … {figure['high']})" if figure["low"] is not None else ""
    return f"{figure['value']}{ends}"


def _privacy(manifest: Mapping[str, Any], statement: Mapping[str, Any]) -> str:
    told = manifest["privacy"]
    if told["epsilon"] is None:
        claim = f"**{told['verdict']}**: no claim of differential privacy is made for the common model."
    else:
        claim = (
            f"**{told['verdict']}**: for each {told['unit']} of a contributor, epsilon {told['epsilon']} at "
            f"delta {told['delta']}, the largest of {len(statement['contributors'])} contributors."
        )
    return f"{claim} What the claim rests on, and what it does not cover, is in `statement.json`."


def _speed(latency: Mapping[str, Any]) -> str:
    machine = latency["machine"]
    if machine is None:
        return (
            f"About {latency['p50_us']} µs (p50), {latency['p90_us']} µs (p90), {latency['p99_us']} µs (p99) "
            f"for one observation, one thread, {latency['runtime']}: orders of magnitude, rounded up, of a "
            f"machine that is not told. Measure on your own."
        )
    return (
        f"p50 {latency['p50_us']} µs, p90 {latency['p90_us']} µs, p99 {latency['p99_us']} µs for one "
        f"observation, one thread, {latency['runs']} runs, {latency['runtime']} on {_cell(machine['cpu'])} "
        f"({machine['architecture']}, {machine['cores']} cores) at load {latency['load']}. Another machine "
        f"has other figures."
    )


def _licence(licence: Mapping[str, Any]) -> str:
    lines = [f"- Licence: {_cell(licence['name'])}"]
    lines += [f"- Purpose: {_cell(one)}" for one in licence["uses"]]
    lines += [f"- Forbidden: {_cell(one)}" for one in licence["forbidden"]]
    return "\n".join(lines)
