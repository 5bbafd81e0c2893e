# SPDX-License-Identifier: Apache-2.0
"""The broker's catalogue, as this member may see it: searched, and written as DCAT."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from client.answers import Answer, plain, short, table
from client.datasets.outputs import check_out, writing
from client.errors import NoSuchThingError
from policies.encoding import is_digest
from policies.messages import EMBODIMENT_CLASSES
from policies.shown_data import EPISODE_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client.membership import Member

__all__ = ["export", "search"]

_DIGITS: Final = 12
_CLOSED: Final = {"embodiment_class": tuple(sorted(EMBODIMENT_CLASSES)), "episodes": EPISODE_BUCKETS}
_OPTIONS: Final = {"embodiment_class": "an embodiment class (--class)", "episodes": "a bucket (--episodes)"}


def search(member: Member, query: Mapping[str, str | None], *, certified: bool) -> Answer:
    """Lists data sets that have all that is asked for.

    Args:
        member: Identity and the way to the broker.
        query: Names of `policies.shown_data.Sought` and what is asked for; None asks nothing.
        certified: Whether a certificate of quality is needed.

    Raises:
        NoSuchThingError: A word of no closed list, or digits of no recipe.
        RemoteRefusalError: The broker refuses.
    """
    asked = {name: value for name, value in query.items() if value is not None}
    for name, words in _CLOSED.items():
        if name in asked and asked[name] not in words:
            raise NoSuchThingError(
                need=f"{_OPTIONS[name]}, one of: {' '.join(words)}",
                found=ascii(asked[name])[:60],
                remedy="choose one of these words",
            )
    if "recipe" in asked:
        asked["recipe"] = _recipe(member, asked["recipe"])
    asked |= {"certified": "true"} if certified else {}
    listed = member.client.get(f"/catalogue?{urlencode(asked)}" if asked else "/catalogue")["datasets"]
    rows = [(plain(one["legal_name"]), plain(one["dataset"]), *_words(one["view"])) for one in listed]
    lines = table(
        ("organisation", "data set", "class", "tasks", "episodes", "enough for", "certificate"), rows
    )
    if not rows:
        lines = ("no such data set, or none that shows what you ask for",)
    return Answer(data={"datasets": listed}, text=lines)


def _recipe(member: Member, digits: str) -> str:
    """The digest of a recipe whose first digits are given, among those that a data set here fits.

    Raises:
        NoSuchThingError: None begins so, or several do.
    """
    if is_digest(digits):
        return digits
    begin = digits.removeprefix("sha256:").lower()
    listed = member.client.get("/catalogue")["datasets"]
    known = sorted({str(fit["recipe"]) for one in listed for fit in one["view"]["fits"]})
    found = [one for one in known if one.removeprefix("sha256:").startswith(begin)]
    if len(begin) < _DIGITS or len(found) != 1:
        raise NoSuchThingError(
            need=f"a recipe's digest, or its first {_DIGITS} digits",
            found=f"{ascii(digits)[:80]}: {len(found) if len(begin) >= _DIGITS else 'too few digits'}",
            remedy="one that a data set is described for: " + (", ".join(map(short, known)) or "none yet"),
        )
    return found[0]


def _words(view: Mapping[str, Any]) -> tuple[str, ...]:
    enough = [short(one["recipe"]) for one in view["fits"] if one["minimum_met"]]
    quality = view.get("quality")
    return (
        plain(view.get("embodiment_class", "not shown")),
        ", ".join(map(plain, view.get("tasks", ()))) or "-",
        plain(view.get("episodes", "not shown")),
        ", ".join(enough) or "no recipe",
        "none" if quality is None else short(quality),
    )


def export(member: Member, out: Path) -> Answer:
    """Writes the catalogue as DCAT (JSON-LD).

    Raises:
        NoSuchThingError: The folder of the file is not there.
    """
    check_out(out)
    found = member.client.get("/catalogue/dcat")
    with writing(out):
        out.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    count = len(found["dcat:dataset"])
    return Answer(data={"file": str(out), "datasets": count}, text=(f"{count} data sets in {out}",))
