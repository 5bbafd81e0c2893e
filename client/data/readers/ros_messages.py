# SPDX-License-Identifier: Apache-2.0
"""ROS 2 bags of either container, as series: what rosbag.py and mcap.py share.

- A channel is ``<topic>:<path>``: ``/wrench:wrench.force.z``; arrays are labelled by joint name, never by
  position (``/joint_states:position.elbow_joint``). Each topic has ``<topic>:log_time``, and
  ``<topic>:header.stamp`` where its type has a header.
- Rows are the messages of one topic, in the order in which they were logged: the topic of the map's clock,
  else of its first signal. Other topics are joined (client.data.readers.ros_joining).
- Stamps are the header's, else log times. ``clock = {column = "header.stamp", unit = "ns", kind = "host"}``
  or ``"log_time"`` says it for the first signal's topic, ``"/joint_states:log_time"`` for another; any other
  column is a clock of its own; ``{rate_hz = 125}`` makes stamps of kind ``derived``. Without ``clock`` the
  kind is ``host``.
- Topics of video and audio are named (``media``), so that an import asks for a consent; they are not read.
- A type that nobody defines is skipped and counted, and refused where the map needs it. A bag that holds
  plans alone is no recording.
- Both containers give equal series for equal messages: one decoder, and order by log time, then by place.

Order of a read: 1. the files of the recording are whole, or somebody accepts that they are cut; 2. every
mapped column has a topic of a known type; 3. messages are read block by block, become rows, are joined and
handed on; 4. every mapped topic and joint has spoken, else the recording is refused before its last part.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from client.data.errors import NoMeasuredStateError, TooLargeError, TruncatedError
from client.data.readers.bagfiles import Recording, has_bag, recordings, sha256_files
from client.data.readers.cdr import CdrError, layout_of, stacked
from client.data.readers.files import check_channels
from client.data.readers.ros_proposal import propose_bag_map
from client.data.readers.ros_reading import Reading
from client.data.readers.ros_streams import LOG_TIME, STAMP
from client.data.readers.ros_types import JOINT_STATE, MEDIA, PLANNED, MessageTypes, full_name
from client.data.series import READ_ALL, Note, Probe, ReadOptions, Series, SourceRef
from policies.limits import BAG_TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from client.data.readers.ros_log import BagFile, Topic
    from client.data.signalmap import SignalMap

__all__ = ["BagReader", "propose_bag_map"]

_SAMPLES: Final = 16  # messages of each topic that a probe looks at
_NOT_RECORDED: Final = frozenset({"rcl_interfaces/msg/Log", "rcl_interfaces/msg/ParameterEvent"})


class BagReader:
    """Bags of one container, whose files have one suffix; ``opened`` checks one and opens it read-only."""

    def __init__(
        self, *, name: str, suffix: str, opened: Callable[[Path], AbstractContextManager[BagFile]]
    ) -> None:
        self.name, self._suffix, self._opened = name, suffix, opened

    def claims(self, path: Path) -> bool:
        """A file of this container, a bag folder, or a folder of them."""
        return has_bag(path, self._suffix)

    def probe(self, path: Path, signals: SignalMap | None) -> Probe:
        """Topics, and the channels of their first messages.

        Raises:
            DataError: A file cannot be read.
            NoMeasuredStateError: All messages are plans.
            TruncatedError: It was cut before its first message.
        """
        del signals
        found = _Found()
        files = [file for recording in recordings(path, self._suffix) for file in recording.files]
        for file in files:
            with self._opened(file) as bag:
                found.add(bag, file.name)
        spoken = found.types_that_spoke - _NOT_RECORDED
        if spoken and spoken <= PLANNED:
            raise NoMeasuredStateError(
                need="messages that a robot measured, as sensor_msgs/msg/JointState",
                found=f"{path.name}: only " + ", ".join(sorted(spoken)),
                remedy="import the recording, not the plan",
            )
        extra: dict[str, Any] = {"joint_states": tuple(found.joint_states), "media": sorted(found.media)}
        probe = Probe(
            reader=self.name,
            version="ros2",
            channels=tuple(found.channels),
            extra=extra,
            units=found.units,
            texts=frozenset(found.texts),
            rows=found.rows,
            bytes=sum(file.stat().st_size for file in files),
        )
        extra["map"] = propose_bag_map(probe)
        return probe

    def read(
        self, path: Path, probe: Probe, signals: SignalMap, note: Note, options: ReadOptions = READ_ALL
    ) -> Iterator[Series]:
        """One series per recording, in parts."""
        note("secret-columns", sum(signals.is_secret(c) for c in probe.channels))
        for recording in recordings(path, self._suffix):
            sha256 = sha256_files(recording.files)
            if sha256 in options.finished:
                source = SourceRef(reader=self.name, file_sha256=sha256, first=0, last=0)
                yield Series.nothing(recording.files[0].name, "host", signals, source)
                continue
            with ExitStack() as stack:
                bags = [stack.enter_context(self._opened(file)) for file in recording.files]
                _check_whole(bags, recording, note, options)
                source = SourceRef(reader=self.name, file_sha256=sha256, first=0, last=0)
                yield from Reading(bags, recording, signals, note, source).series()


class _Found:
    """What a probe has seen so far."""

    def __init__(self) -> None:
        self.channels: dict[str, None] = {}
        self.units: dict[str, str] = {}
        self.texts: set[str] = set()
        self.joint_states: dict[str, None] = {}
        self.media: set[str] = set()
        self.types_that_spoke: set[str] = set()
        self.rows: int | None = 0

    def add(self, bag: BagFile, name: str) -> None:
        """The topics and first messages of a file."""
        if len(bag.topics) > BAG_TOPICS:
            raise TooLargeError(
                need=f"at most {BAG_TOPICS} topics", found=f"{name}: more", remedy="record fewer topics"
            )
        self.media |= {topic.name for topic in bag.topics.values() if full_name(topic.type) in MEDIA}
        known = {key: topic.types() for key, topic in bag.topics.items()}
        spoken: set[int] = set()
        for key, data in bag.samples(_SAMPLES):
            spoken.add(key)
            topic, types = bag.topics[key], known[key]
            if types is not None:
                self._message(topic, types, data)
        if bag.cut and not spoken:
            raise _cut(name, "its first message")
        self.types_that_spoke |= {full_name(bag.topics[key].type) for key in spoken}
        self.rows = None if self.rows is None or bag.rows is None else self.rows + bag.rows

    def _message(self, topic: Topic, types: MessageTypes, data: bytes) -> None:
        try:
            layout = layout_of(data, full_name(topic.type), types)
        except CdrError:
            return  # `read` refuses it where the map needs it
        if full_name(topic.type) == JOINT_STATE and layout.names:
            self.joint_states[topic.name] = None
        check_channels(len(self.channels) + len(layout.numbers) + len(layout.words), topic.name)
        for path in (*layout.numbers, *layout.words):
            if not path.startswith("header."):
                self.channels[f"{topic.name}:{path}"] = None
        parts = [f"{STAMP}.{part}" for part in ("sec", "nanosec")]
        if any(part in layout.numbers and layout.column(stacked([data]), part)[0] for part in parts):
            self.channels[f"{topic.name}:{STAMP}"] = None
        self.channels[f"{topic.name}:{LOG_TIME}"] = None
        self.units |= {f"{topic.name}:{path}": unit for path, unit in layout.units.items()}
        self.texts |= {f"{topic.name}:{path}" for path in layout.words if not path.startswith("header.")}


def _cut(name: str, where: str) -> TruncatedError:
    return TruncatedError(
        need="a whole file",
        found=f"{name}: cut after {where}",
        remedy="copy the file again; or import what is complete with --accept-truncated",
    )


def _check_whole(bags: list[BagFile], recording: Recording, note: Note, options: ReadOptions) -> None:
    """Step 1."""
    for bag, file in zip(bags, recording.files, strict=True):
        if bag.cut and not options.accept_truncated:
            count = sum(1 for _ in bag.messages(frozenset()))
            raise _cut(file.name, f"{count} complete messages")
        note("truncated", int(bag.cut))
