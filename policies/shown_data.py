# SPDX-License-Identifier: Apache-2.0
"""What each party may know about a data set, how it is searched, and its DCAT record.

- A data set's owner and the broker's operators see the whole descriptor (`policies.messages`).
- Another member sees `open_view`: embodiment class, tasks, the bucket of episodes, the certificate's digest
  as long as that certificate is in force, and which recipes it fits. Where the owner chose ``fits``, it sees
  the last of these alone.
- Nobody else sees a descriptor's digest: with what is shown, it would confirm guesses of what is not.
- A search looks only at what the caller may see, so that it answers nothing that a listing would not.
- DCAT is the W3C's vocabulary of data catalogues, version 3 (https://www.w3.org/TR/vocab-dcat-3/), as
  JSON-LD. A record has the same words as the listing; there is no distribution, because the data are not
  given out.

    view = open_view(descriptor)
    Sought(task="pick-place", episodes="100-299").matches(view, certified=False)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from policies.messages import EpisodesBucket

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from policies.encoding import Json
    from policies.messages import Descriptor

__all__ = ["EPISODE_BUCKETS", "Shown", "Sought", "dcat_catalogue", "open_view", "whole_view"]

Shown = Literal["open", "fits"]
"""What other members see: the coarse words, or only which recipes the data set fits."""
EPISODE_BUCKETS: Final[tuple[str, ...]] = get_args(EpisodesBucket)
_OPEN: Final = ("embodiment_class", "tasks", "episodes", "quality")
_CONTEXT: Final[dict[str, Json]] = {
    "dcat": "http://www.w3.org/ns/dcat#",
    "dct": "http://purl.org/dc/terms/",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "iriai": "urn:iriai:catalogue:1:",
}


def whole_view(descriptor: Descriptor) -> dict[str, Any]:
    """All words of a descriptor, for its owner and for operators."""
    return descriptor.model_dump(by_alias=True)


def open_view(descriptor: Descriptor, *, shown: Shown = "open", certified: bool = True) -> dict[str, Any]:
    """What another member sees of a descriptor.

    Args:
        descriptor: Of another member.
        shown: What its owner chose.
        certified: Whether the certificate that it names is held and admits the data; else it is not named.
    """
    whole = whole_view(descriptor) | ({} if certified else {"quality": None})
    names = (*_OPEN, "fits") if shown == "open" else ("fits",)
    return {name: whole[name] for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What a search asks for; nothing asked matches everything.

    Attributes:
        embodiment_class: Exactly this class.
        task: One of its tasks.
        episodes: A bucket; larger ones match too.
        field: One of its fields; only where the caller sees them.
        label: One of its labels, likewise.
        recipe: Digest of a recipe for which it has enough episodes.
        certified: Whether the certificate of quality that it names is there and admits the data; only where
            the caller sees which one that is.
    """

    embodiment_class: str | None = None
    task: str | None = None
    episodes: str | None = None
    field: str | None = None
    label: str | None = None
    recipe: str | None = None
    certified: bool = False

    def matches(self, view: Mapping[str, Any], *, certified: bool) -> bool:
        """Whether a view has all that is asked for; what it does not show, it does not have.

        Args:
            view: As the caller may see it.
            certified: Whether the certificate that its descriptor names is held and admits the data.
        """
        fits = {one["recipe"] for one in view.get("fits", ()) if one["minimum_met"]}
        return (
            self.embodiment_class in (None, view.get("embodiment_class"))
            and _holds(self.task, view.get("tasks", ()))
            and _holds(self.field, view.get("fields", ()))
            and _holds(self.label, view.get("labels", ()))
            and _holds(self.recipe, fits)
            and (self.episodes is None or self._enough(view.get("episodes")))
            and (not self.certified or (certified and view.get("quality") is not None))
        )

    def _enough(self, bucket: str | None) -> bool:
        asked = str(self.episodes)
        return bucket is not None and EPISODE_BUCKETS.index(bucket) >= EPISODE_BUCKETS.index(asked)


def _holds(asked: str | None, there: Iterable[str]) -> bool:
    return asked is None or asked in there


def dcat_catalogue(rows: Iterable[Mapping[str, Any]], *, publisher: str, identifier: str) -> dict[str, Json]:
    """The catalogue as JSON-LD.

    Args:
        rows: With ``org``, ``legal_name``, ``dataset``, ``certified`` and ``view``, as the caller sees them.
        publisher: Name of the broker.
        identifier: IRI of the catalogue.
    """
    return {
        "@context": _CONTEXT,
        "@id": identifier,
        "@type": "dcat:Catalog",
        "dct:title": "Data sets that members describe",
        "dct:publisher": {"@type": "foaf:Organization", "foaf:name": publisher},
        "dcat:dataset": [_dcat_dataset(one, identifier) for one in rows],
    }


def _dcat_dataset(row: Mapping[str, Any], catalogue: str) -> dict[str, Json]:
    view = row["view"]
    name = f"{row['org']}/{row['dataset']}"  # never a digest of what the caller may not see
    made: dict[str, Json] = {
        "@id": f"{catalogue}#{name}",
        "@type": "dcat:Dataset",
        "dct:identifier": name,
        "dct:title": row["dataset"],
        "dct:publisher": {"@type": "foaf:Organization", "foaf:name": row["legal_name"]},
        "dct:accessRights": "not given out: used at its owner's site, under a contract",
    }
    if "tasks" in view:
        made |= {
            "dcat:keyword": [*view["tasks"]],
            "iriai:embodimentClass": view["embodiment_class"],
            "iriai:episodes": view["episodes"],
        }
    if row["certified"] and view.get("quality"):
        made["dct:conformsTo"] = f"urn:{view['quality']}"
    return made
