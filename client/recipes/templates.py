# SPDX-License-Identifier: Apache-2.0
"""``recipe new``: a complete recipe of a kind, to be changed; the drafts are files of this package.

- ``drafts/<kind>.yaml`` is all of a recipe but its plan and how it is trained; ``private.yaml`` and
  ``plain.yaml`` are these, for a recipe with a privacy plan and for one without.
- A line ``# change: what - why`` of a draft is printed beside the file, because JSON has no comments. With a
  file that ends with .yaml the draft itself is written, comments and all; ``recipe format`` makes the recipe.
- Two drafts exist without a plan alone: act-small has so many parameters that noise would drown it, and what
  private tensors do to the shared ones is in no accounting.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Final

from client.answers import Answer
from client.errors import FileTakenError, NoSuchThingError
from client.recipes.completing import complete
from client.recipes.kinds import Kind
from client.recipes.sources import read_text
from client.settings import write_durably

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Kind", "changes", "draft", "recipe_new"]

_CHANGE: Final = re.compile(r"^# change: (.+(?:\n#   .+)*)$", re.MULTILINE)
_YAML: Final = frozenset({".yaml", ".yml"})
_MODE: Final = 0o644


_PLAIN_ALONE: Final = {
    Kind.BEHAVIOUR_CLONING_ACT: "a draft of 403 thousand parameters, which the noise of a plan would drown",
    Kind.TWO_EMBODIMENTS: "a draft with private tensors, whose influence no plan accounts for",
}


def recipe_new(kind: Kind, *, out: Path, plain: bool) -> Answer:
    """Writes a draft as a recipe, or with its comments, and says what to change.

    Args:
        kind: Of which.
        out: New file; one that ends with .yaml has the comments.
        plain: Without a privacy plan: NOT PRIVATE.

    Raises:
        NoSuchThingError: This kind has no draft with a plan.
        FileTakenError: The file is there already, or its folder is not.
    """
    if out.exists() or not out.parent.is_dir():
        raise FileTakenError(
            need="a new file in a folder that is there", found=str(out), remedy="choose another --out"
        )
    text = draft(kind, plain=plain)
    made = complete(read_text(text, as_json=False))
    as_draft = out.suffix in _YAML
    write_durably(out, text.encode("utf-8") if as_draft else made.data, mode=_MODE)
    told = changes(text)
    todo = f"recipe format {out}" if as_draft else f"recipe check {out}"
    return Answer(
        data={
            "file": str(out),
            "kind": kind.value,
            "private": not plain,
            "recipe": made.recipe.digest,
            "change": [{"what": what, "why": why} for what, why in told],
        },
        text=(
            f"recipe    {out}: {kind.value}, {'NOT PRIVATE' if plain else 'with a privacy plan'}",
            *(f"change    {what}: {why}" for what, why in told),
            f"next: change it, then iriai-node {todo}",
        ),
    )


def draft(kind: Kind, *, plain: bool) -> str:
    """The text of a draft.

    Raises:
        NoSuchThingError: This kind has no draft with a plan.
    """
    if not plain and kind in _PLAIN_ALONE:
        raise NoSuchThingError(
            need="a draft that carries a privacy plan",
            found=_PLAIN_ALONE[kind],
            remedy="--plain for one without, which is NOT PRIVATE; or another kind",
        )
    folder = resources.files("client.recipes") / "drafts"
    names = (kind.value, "plain" if plain else "private")
    return "".join((folder / f"{name}.yaml").read_text("utf-8") for name in names)


def changes(text: str) -> tuple[tuple[str, str], ...]:
    """What a draft says is to be changed, and why."""
    found = (re.sub(r"\n#\s*", " ", one) for one in _CHANGE.findall(text))
    parts = (one.partition(" - ") for one in found)
    return tuple((what, why) for what, _, why in parts)
