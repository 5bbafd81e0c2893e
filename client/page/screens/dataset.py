# SPDX-License-Identifier: Apache-2.0
"""One data set: how good is it, what is left out, what do others know of it? With pictures of findings."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from client.contract.reading import latest_signed
from client.datasets.published import content_of, read_published
from client.datasets.showing import data_show
from client.page.panels import ROWS, shown
from client.page.screens.budget import UNITS
from client.page.screens.data import STANDINGS, VERDICTS, verdict
from client.page.values import (
    Code,
    Column,
    Command,
    Data,
    Digest,
    Empty,
    Fact,
    Link,
    Mark,
    Moment,
    Panel,
    Screen,
    Several,
    Table,
    msg,
)
from client.settings import load_settings
from policies.ports import to_ms

if TYPE_CHECKING:
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Text, Value

__all__ = ["DRAWN_FRAMES", "dataset"]

DRAWN_FRAMES: Final = 40_000  # about a second; a larger one is looked at only where its address asks for it
_FRAME: Final = Markup(
    '<div class="quality wide" role="group" tabindex="0" aria-labelledby="head-quality">{}</div>'
)
_STATES: Final = {
    "FAIL": Mark("bad", msg("fails"), "FAIL"),
    "UNDETERMINED": Mark("warn", msg("cannot be told"), "UNDETERMINED"),
    "PASS": Mark("good", msg("passes"), "PASS"),
    "NOT_APPLICABLE": Mark("idle", msg("does not apply"), "NOT_APPLICABLE"),
}
_ANSWERS: Final = {"success": msg("success"), "fail": msg("failure"), "unknown": msg("unknown")}


def dataset(site: Site, asked: Asked) -> Screen:
    """One data set; ``pictures=1`` draws a large one too.

    Raises:
        DatasetUnknownError: No such data set.
    """
    from client.data import Store

    name = asked.name
    Store(site.home.data).catalogue().dataset(name)  # an unknown name is no page
    return Screen(
        name="dataset",
        title=msg("Data set {name}", name=Data(name)),
        question=msg("How good is it, what is left out, and what do others know of it?"),
        command=f"iriai-node data show {shlex.quote(name)}",
        panels=(
            shown("facts", msg("What it is"), lambda: _facts(site, name)),
            shown("published", msg("What others are told"), lambda: _published(site, name)),
            shown("quality", msg("Quality"), lambda: _quality(site, asked)),
            shown("excluded", msg("Left out"), lambda: _excluded(site, name)),
            shown("marks", msg("Judged by people"), lambda: _marks(site, name)),
        ),
    )


def _told(site: Site, name: str) -> dict[str, Any]:
    now_ms = site.clock.now_ms()
    found: dict[str, Any] = site.once(
        f"data {name}", lambda: data_show(site.home, site.identity, name, now_ms=now_ms).data
    )
    return found


def _facts(site: Site, name: str) -> Panel:
    told = _told(site, name)
    certificate = told["certificate"]
    facts = (
        Fact("dataset", msg("Data set"), Data(name)),
        Fact("verdict", msg("Verdict"), verdict(certificate["verdict"], asked=certificate["asked"])),
        Fact("certificate", msg("Certificate"), _digest(certificate["digest"])),
        Fact("robot", msg("Robot"), _robot(told["embodiment"])),
        Fact("rate", msg("Frames a second"), str(told["rate_hz"])),
        Fact("episodes", msg("Episodes"), told["episodes"]),
        Fact("frames", msg("Frames"), told["frames"]),
        Fact("train", msg("To train"), told["train"]),
        Fact("held-out", msg("Held out, to judge by"), told["held_out"]),
        Fact("unit", msg("What is protected as one unit"), UNITS.get(told["unit"], Code(told["unit"]))),
        Fact("fields", msg("Fields"), Several(tuple(Data(one) for one in told["fields"]))),
        Fact("labels", msg("Labels"), Several(tuple(Data(one) for one in told["labels"]))),
        Fact("contracts", msg("Contracts"), Several(tuple(Digest(one) for one in told["contracts"]))),
        Fact("lineage", msg("Lineage, whose budget it is"), Code(told["lineage"])),
    )
    return Panel(name="facts", title=msg("What it is"), facts=facts)


def _digest(text: str | None) -> Value:
    return None if text is None else Digest(text)


def _robot(robot: dict[str, Any]) -> Value:
    return (
        Data(str(robot["class"]))
        if "class" in robot
        else msg("not said; to publish, say it in the signal map")
    )


def _published(site: Site, name: str) -> Panel:
    title, record = msg("What others are told"), read_published(site.home, name)
    command = Command(f"iriai-node data publish {name}")
    if not record.content:
        return Panel(
            name="published",
            title=title,
            empty=Empty(
                msg("Here stands the signed description that other members see."),
                msg("Nothing of this data set was published."),
                command,
            ),
        )
    if record.withdrawn_ms:
        return Panel(
            name="published",
            title=title,
            facts=(
                Fact("catalogue", msg("In the catalogue"), STANDINGS["withdrawn"]),
                Fact("withdrawn", msg("Withdrawn"), Moment(record.withdrawn_ms)),
            ),
            empty=Empty(
                msg("Here stands the signed description that other members see."),
                msg("It was withdrawn: no member finds this data set. Contracts that name it go on."),
                command,
            ),
        )
    shown_as = (
        msg("coarse words: kind of robot, fields, buckets of size and rate")
        if record.shown == "open"
        else msg("only which recipes it fits")
    )
    facts = [
        Fact("catalogue", msg("In the catalogue"), STANDINGS["published"]),
        Fact("since", msg("Since"), Moment(record.since_ms)),
        Fact("shown", msg("Others see"), shown_as),
        Fact("tasks", msg("Words for tasks"), Several(tuple(Data(one) for one in record.tasks))),
    ]
    return Panel(name="published", title=title, facts=(*facts, *_descriptor(site, name, record.content)))


def _descriptor(site: Site, name: str, content: str) -> tuple[Fact, ...]:
    """The description made again from the data; said to be another one where the data changed since."""
    from client.data import describe, task_words
    from client.data.quality import read_certificate
    from client.datasets.adding import allowed_fields, needed_episodes, recipes_of

    held = site.shelf.get(latest_signed(site.member, site.shelf))
    recipes = recipes_of(site.shelf, held, name)
    contracts = (held.contract.digest, *site.shelf.earlier(held.contract.digest))
    keys = [site.identity.key.public, *site.identity.former]
    certificate, _ = read_certificate(site.home.data, name, keys)
    words = task_words(site.home.data, name, contracts)
    kept = read_published(site.home, name)
    found = describe(
        site.home.data,
        name,
        node=site.identity.node,
        allow=allowed_fields(held, load_settings(site.home).local),
        clock=site.clock,
        recipes={one.digest: needed_episodes(one) for one in recipes},
        tasks=tuple(sorted({*kept.tasks, *(words & {one.task.name for one in recipes})})),
        quality=certificate.digest,
        contracts=contracts,
    )
    same = content_of(found) == content
    state = (
        Mark("good", msg("exactly this was published"), "same")
        if same
        else Mark("warn", msg("the data changed since: this would be published now"), "changed")
    )
    document = found.model_dump(by_alias=True)
    return (
        Fact("same", msg("Against the data now"), state),
        *(
            Fact(f"descriptor-{key}", _DESCRIBED[key], _described(key, document[key]))
            for key in _DESCRIBED
            if key in document
        ),
    )


_DESCRIBED: Final[dict[str, Text]] = {
    "embodiment_class": msg("Kind of robot"),
    "dof": msg("Joints"),
    "action_space": msg("Kind of action"),
    "rate_hz": msg("Rate, as a bucket"),
    "episodes": msg("Episodes, as a bucket"),
    "period": msg("Period"),
    "fields": msg("Fields"),
    "labels": msg("Labels"),
    "tasks": msg("Tasks"),
    "fits": msg("Recipes that it fits"),
}


def _described(key: str, value: Any) -> Value:  # noqa: ANN401  a value of a JSON document
    if key != "fits":
        return _plain(value)
    return Several(
        tuple(
            msg(
                "{recipe}: {enough}",
                recipe=Digest(str(one["recipe"])),
                enough=msg("enough episodes") if one["minimum_met"] else msg("too few episodes"),
            )
            for one in value
        ),
        lines=True,
    )


def _plain(value: Any) -> Value:  # noqa: ANN401  a value of a JSON document
    if value is None:
        return None
    if isinstance(value, list):
        return Several(tuple(_plain(one) for one in value))
    return Data(str(value))


def _quality(site: Site, asked: Asked) -> Panel:
    from client.data.quality import check_dataset
    from client.data.quality.page import parts_of

    told, title = _told(site, asked.name), msg("Quality")
    if told["frames"] > DRAWN_FRAMES and asked.text("pictures") is None:
        return _last_findings(told, asked.name)
    report = check_dataset(site.home.data, asked.name)
    drawn = Markup(str(parts_of(report, asked.lang)))  # noqa: S704  escaped piece by piece where it is made
    return Panel(
        name="quality",
        title=title,
        facts=(Fact("verdict", msg("Verdict of the checks, now"), VERDICTS[report.verdict]),),
        drawing=_FRAME.format(drawn),
    )


def _last_findings(told: dict[str, Any], name: str) -> Panel:
    rows = tuple(
        (Code(str(one.get("code"))), _STATES.get(str(one.get("state"))), int(one.get("count", 0)))
        for one in told["findings"]
    )
    columns = (
        Column("code", msg("Finding")),
        Column("state", msg("State")),
        Column("episodes", msg("Episodes"), numeric=True),
    )
    return Panel(
        name="quality",
        title=msg("Quality"),
        prose=(
            msg("These are the findings of the last check; the data set is too large to look at each time."),
        ),
        table=Table(msg("Findings of the last check"), columns, rows),
        links=(Link(f"/data/{name}", msg("Look at it now, with pictures"), {"pictures": "1"}),),
    )


def _excluded(site: Site, name: str) -> Panel:
    title = msg("Left out")
    rows = [one for one in _told(site, name)["episode_rows"] if one["excluded"]]
    if not rows:
        return Panel(
            name="excluded",
            title=title,
            empty=Empty(
                msg("Here stand episodes that a check or a person left out of training."),
                msg("None is left out."),
                Command(f'iriai-node data exclude {name} EPISODE --by "NAME"'),
            ),
        )
    columns = (
        Column("episode", msg("Episode")),
        Column("by", msg("Left out by")),
        Column("frames", msg("Frames"), numeric=True),
        Column("file", msg("File")),
    )
    found = tuple(
        (
            Code(one["episode"]),
            Several(tuple(Code(check) for check in one["excluded"])),
            one["frames"],
            None if one["file"] is None else Data(one["file"]),
        )
        for one in rows[:ROWS]
    )
    return Panel(
        name="excluded",
        title=title,
        table=Table(msg("Episodes that are left out"), columns, found, total=len(rows)),
    )


def _marks(site: Site, name: str) -> Panel:
    title, told = msg("Judged by people"), _told(site, name)
    rows: list[tuple[Value, ...]] = [
        (
            Code(one["episode"]),
            _ANSWERS.get(one["outcome"], Code(str(one["outcome"]))),
            Data(str(one["outcome_by"])),
            None,
        )
        for one in told["episode_rows"]
        if one["outcome_by"]
    ]
    rows += [
        (Code(episode), _left_out(one), Data(str(one["by"])), Moment(to_ms(one["at"])))
        for episode, one in told["left_out"].items()
    ]
    rows += [
        (Code(one["check"]), msg("a finding was accepted"), Data(one["by"]), Moment(to_ms(one["at"])))
        for one in told["accepted"]
    ]
    if not rows:
        return Panel(
            name="marks",
            title=title,
            empty=Empty(
                msg("Here stands what people said about episodes and findings."),
                msg("Nobody said anything yet."),
                Command(f'iriai-node data mark {name} EPISODE --outcome success --by "NAME"'),
            ),
        )
    columns = (
        Column("what", msg("Episode or check")),
        Column("said", msg("What was said")),
        Column("by", msg("By")),
        Column("at", msg("When")),
    )
    return Panel(
        name="marks",
        title=title,
        table=Table(msg("What people said"), columns, tuple(rows[:ROWS]), total=len(rows)),
    )


def _left_out(one: dict[str, Any]) -> Value:
    return msg("left out") if one.get("out") else msg("taken back in")
