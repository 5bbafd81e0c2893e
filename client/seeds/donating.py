# SPDX-License-Identifier: Apache-2.0
"""``iriai-node seed donate``: some episodes of this site become public, by a person's word.

1. the recipe is sound, and the site's own field list lets its fields out;
2. the data set is opened, or a recording is read aside: the recipe's fields only, at its time base;
3. the episodes are chosen: those that were named, or the first ones in the order of their unit ids, which
   says nothing about when they were recorded;
4. the consent is written and signed; nothing has left this process;
5. a person reads what becomes public, and types the digits of the consent's digest;
6. the episodes are remembered as given, durably: from here on they are in no training and no judging here;
7. the file is written. What the person does with it is the donation.

Step 6 comes before 7, so that no crash leaves an episode both public and private.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.answers import Answer, short
from client.errors import NoSuchThingError, NotConfirmedError
from client.seeds.donated import Given, place_of, remember
from policies.donations import TERMS, Consent, donation_bytes, seal_consent
from policies.encoding import digest
from policies.identity import key_text
from policies.limits import SEED_EPISODES
from policies.ports import iso_s
from policies.recipe import load
from policies.seed_episodes import SeedEpisode, published
from policies.seeds import SeedSet, is_licence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from client.contract.shelf import ContractShelf
    from client.data.fields import Episode, EpisodeView
    from client.data.series import Split
    from client.data.store import EpisodeMeta
    from client.membership import Member
    from client.settings import LocalRules
    from policies.recipe import Recipe

__all__ = ["Recording", "donate"]

_UNSIGNED: Final = "sha256:" + "0" * 64  # stands for the consent until it is signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording that is not in the store: where it lies, and how it is read."""

    path: Path
    signal_map: Path | None = None
    reader: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """An episode as the store has it, and as it becomes public."""

    meta: EpisodeMeta
    episode: SeedEpisode


def donate(
    member: Member,
    shelf: ContractShelf,
    *,
    dataset: str,
    party: str | None,
    recipe: bytes,
    licence: str,
    out: Path,
    rules: LocalRules,
    confirm: Callable[[str], bool],
    count: int | None = None,
    episodes: Sequence[str] = (),
    recording: Recording | None = None,
    tell: Callable[[tuple[str, ...]], None] = lambda _lines: None,
) -> Answer:
    """Writes a donation; see the module for the steps.

    Args:
        member: Identity and clock.
        shelf: Contracts of this node, which know its short name.
        dataset: Name of the data set, as the contract will list it.
        party: Short name that the contract will give this organisation; the newest contract's if left out.
        recipe: Bytes of the recipe: its fields become public, and no other.
        licence: One line, like ``CC-BY-4.0``.
        out: New file.
        rules: The site's own rules.
        confirm: Shows the first 12 hex digits of the consent and gives the person's answer.
        count: How many episodes, if they are not named.
        episodes: Their ids.
        recording: Where the episodes are, if not in the store.
        tell: Takes what stands above the question.

    Raises:
        RecipeError, NoSuchThingError: Step 1.
        DataError: Step 2.
        NoSuchThingError: Step 3.
        NotConfirmedError: Step 5; nothing was remembered or written.
        StoreDamagedError: Step 6.
    """
    # 1.
    loaded = load(recipe)
    _check_terms(loaded, rules, licence)
    if out.exists() or not out.parent.is_dir():
        raise NoSuchThingError(
            need="a new file in a folder that is there", found=str(out), remedy="choose another --out"
        )
    name = party or _own_name(shelf)
    # 2. and 3.
    with _opened(member, loaded, rules, dataset=dataset, recording=recording) as view:
        chosen = _choose(view, loaded, count=count, ids=episodes)
    chosen = [
        replace(one, episode=replace(one.episode, party=name, dataset=dataset, licence=licence))
        for one in chosen
    ]
    # 4.
    consent = Consent(
        party=name,
        key=key_text(member.identity.key.public),
        dataset=dataset,
        licence=licence,
        purpose=loaded.task.name,
        episodes=tuple(sorted(one.episode.digest for one in chosen)),
        observation=tuple(sorted(one.field for one in loaded.inputs)),
        action=tuple(sorted(one.field for one in loaded.outputs)),
        labels=() if loaded.label is None else (loaded.label,),
        at=iso_s(member.clock.now_ms()),
    )
    envelope = seal_consent(consent, member.identity.key)
    given = [replace(one.episode, consent=digest(envelope)) for one in chosen]
    SeedSet.of(given)  # it could be one by itself: not too large, nothing twice
    # 5.
    tell(_summary(consent, given))
    if not confirm(short(digest(envelope))):
        raise NotConfirmedError(
            need="a person's word", found="no", remedy="nothing was given, nothing written"
        )
    # 6.
    kept = [
        Given(
            content=one.meta.content,
            place=place_of(one.meta),
            published=one.episode.digest,
            dataset=dataset,
            consent=digest(envelope),
        )
        for one in chosen
    ]
    remember(member.home, kept)
    # 7.
    data = donation_bytes(envelope, given)
    out.write_bytes(data)
    return _answer(out, consent, digest(envelope), given, len(data))


def _check_terms(recipe: Recipe, rules: LocalRules, licence: str) -> None:
    if recipe.has_private:
        raise NoSuchThingError(
            need="a recipe that every site reads alike",
            found="one with variants: no seed set shows what each of them reads",
            remedy="let it start from a base checkpoint of the trunk: iriai-node recipe base",
        )
    if not is_licence(licence):
        raise NoSuchThingError(
            need="a licence in one line", found=ascii(licence)[:80], remedy="--licence CC-BY-4.0, for example"
        )
    strangers = set(recipe.fields) - set(recipe.fields if rules.fields is None else rules.fields)
    if strangers:
        raise NoSuchThingError(
            need="fields of this site's own list (local.fields in node.toml)",
            found=", ".join(sorted(strangers)),
            remedy="donate under another recipe, or change the list",
        )


def _own_name(shelf: ContractShelf) -> str:
    held = [shelf.get(one) for one in shelf.digests()]
    if not held:
        raise NoSuchThingError(
            need="the short name that the contract will give you",
            found="no contract here",
            remedy="name it with --party; the operator tells it",
        )
    return max(held, key=lambda one: (one.contract.term.effective, one.contract.version)).party.party


@contextmanager
def _opened(
    member: Member, recipe: Recipe, rules: LocalRules, *, dataset: str, recording: Recording | None
) -> Iterator[EpisodeView]:
    """The view of the data set; a recording is imported into a store of its own, which is deleted."""
    from client.data import import_path, open_view

    allow = recipe.fields if rules.fields is None else rules.fields

    def view(root: Path) -> EpisodeView:
        return open_view(
            root,
            dataset,
            contract_fields=recipe.fields,
            recipe_inputs=recipe.fields,
            local_allow=allow,
            rate_hz=recipe.rate_hz,
            imitates=recipe.task.kind == "behaviour-cloning",
        )

    if recording is None:
        yield view(member.home.data)
        return
    with tempfile.TemporaryDirectory(prefix=".donation-", dir=member.home.root) as aside:
        import_path(
            Path(aside),
            recording.path,
            dataset=dataset,
            signal_map=recording.signal_map,
            allow=frozenset(recipe.fields),
            rights="donation",
            node_key=member.identity.unit_key,
            clock=member.clock,
            required=frozenset(recipe.fields),
            source_format=recording.reader,
        )
        yield view(Path(aside))


def _choose(view: EpisodeView, recipe: Recipe, *, count: int | None, ids: Sequence[str]) -> list[_Chosen]:
    """The named episodes, or the first ``count`` training ones that are whole and not empty.

    Raises:
        NoSuchThingError: Too few, or an id that is none of a usable episode.
    """
    usable = {one.meta.episode_id: one for one in view.stored if not one.meta.excluded}
    unknown = sorted(set(ids) - set(usable))
    if unknown or bool(ids) == (count is not None):
        raise NoSuchThingError(
            need="--count N, or --episode ID of usable episodes",
            found=", ".join(unknown)[:200] or ("both" if ids else "neither"),
            remedy=f"the data set has {len(usable)} usable ones",
        )
    first = [one for one in usable.values() if one.meta.split == "train"]
    rows = [usable[one] for one in ids] if ids else sorted(first, key=lambda one: one.meta.unit_id)
    found: dict[str, _Chosen] = {}
    for row in rows:
        if len(found) == (len(ids) if count is None else min(count, SEED_EPISODES)):
            break
        split: Split = "train" if row.meta.split == "train" else "held-out"
        for one in replace(view, stored=(row,)).episodes(split):
            published = _published(one, recipe)
            found.setdefault(published.digest, _Chosen(meta=row.meta, episode=published))
    wanted = len(ids) if count is None else count
    if len(found) != wanted:
        raise NoSuchThingError(
            need=f"{wanted} different episodes that are not empty, at most {SEED_EPISODES}",
            found=str(len(found)),
            remedy="ask for fewer, or name others",
        )
    return list(found.values())


def _published(episode: Episode, recipe: Recipe) -> SeedEpisode:
    shown = published(recipe, episode.fields, episode.actions, episode.labels)
    return SeedEpisode(
        party="",
        dataset="",
        licence="",
        consent=_UNSIGNED,
        observation=shown.observation,
        action=shown.action,
        labels=shown.labels,
    )


def _summary(consent: Consent, given: Sequence[SeedEpisode]) -> tuple[str, ...]:
    frames = sum(one.frames for one in given)
    return (
        f"you give    {len(given)} episodes of {consent.dataset}, {frames} frames in all",
        f"as          {consent.party}, under {consent.licence}, {TERMS}",
        f"they show   {', '.join((*consent.observation, *consent.action, *consent.labels))}",
        "public      whoever gets the file has these recordings, for ever and for anything; a contract",
        "            names them to all parties, and its broker hands them on",
        "afterwards  this node trains and judges on them no more; no privacy is claimed for them. A run",
        "            that trains on this data set now ends here: give before a run, not during one",
    )


def _answer(out: Path, consent: Consent, name: str, given: Sequence[SeedEpisode], size_bytes: int) -> Answer:
    return Answer(
        data={
            "file": str(out),
            "consent": name,
            "party": consent.party,
            "dataset": consent.dataset,
            "licence": consent.licence,
            "episodes": [{"digest": one.digest, "frames": one.frames} for one in given],
            "size_bytes": size_bytes,
        },
        text=(
            f"donation  {out}, {size_bytes} bytes, {len(given)} episodes",
            f"consent   {name}",
            "next: hand the file to who drafts the contract: iriai-node seed join",
        ),
    )
