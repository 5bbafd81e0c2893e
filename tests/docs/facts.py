# SPDX-License-Identifier: Apache-2.0
"""What the code itself says: errors, commands, routes, entry types, settings, bounds.

The reference pages are written from these facts (`generate.py`), and the tests compare both. Errors and entry
types in use are read from the source text, so a copy of the tree can be asked as well as the tree itself.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

with warnings.catch_warnings():  # typer 0.20 imports names that click 8.4 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import typer
    import typer.main

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "client", "policies", "sandbox")
PROGRAMS = ("iriai-broker", "iriai-node", "iriai-verify", "iriai-sandbox")


# --- errors ---


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFact:
    """One error class. ``own_code``: the class states a code itself; else it has its parent's."""

    name: str
    module: str
    code: str
    own_code: bool
    exit_code: int
    http_status: int
    words: str

    @property
    def package(self) -> str:
        """First part of the module's name."""
        return self.module.partition(".")[0]


def sources(root: Path) -> list[Path]:
    """Every source file of the four packages."""
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def module_of(root: Path, path: Path) -> str:
    """Dotted name of a source file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Classes:
    """All classes of a tree, with their bases resolved over modules and re-exports."""

    def __init__(self, root: Path) -> None:
        self.defined: dict[tuple[str, str], ast.ClassDef] = {}
        self._imported: dict[tuple[str, str], tuple[str, str]] = {}
        for path in sources(root):
            module = module_of(root, path)
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    self.defined[module, node.name] = node
                elif isinstance(node, ast.ImportFrom) and node.module:
                    for one in node.names:
                        self._imported[module, one.asname or one.name] = (node.module, one.name)

    def resolve(self, module: str, name: str) -> tuple[str, str] | None:
        """Where the class behind a name is defined; None outside the tree."""
        seen: set[tuple[str, str]] = set()
        here = (module, name)
        while here not in self.defined:
            if here in seen or here not in self._imported:
                return None
            seen.add(here)
            here = self._imported[here]
        return here

    def line(self, here: tuple[str, str]) -> list[tuple[str, str]]:
        """The class and its ancestors, nearest first."""
        found, queue = [], [here]
        while queue:
            one = queue.pop(0)
            if one in found:
                continue
            found.append(one)
            for base in self.defined[one].bases:
                if isinstance(base, ast.Name):
                    above = self.resolve(one[0], base.id)
                    if above is not None:
                        queue.append(above)
        return found


def _constant(node: ast.ClassDef, name: str) -> Any:
    for one in node.body:
        target = one.target if isinstance(one, ast.AnnAssign) else None
        if isinstance(one, ast.Assign) and len(one.targets) == 1:
            target = one.targets[0]
        if isinstance(target, ast.Name) and target.id == name and isinstance(one.value, ast.Constant):
            return one.value.value
    return None


def first_sentence(text: str | None) -> str:
    """First paragraph of a docstring on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


@functools.cache
def errors(root: Path = ROOT) -> list[ErrorFact]:
    """Every class below ``IriaiError``, by code."""
    classes = Classes(root)
    base = ("policies.errors", "IriaiError")
    found = []
    for here, node in classes.defined.items():
        line = classes.line(here)
        if base not in line:
            continue
        values = {
            name: next(v for one in line if (v := _constant(classes.defined[one], name)) is not None)
            for name in ("code", "exit_code", "http_status")
        }
        found.append(
            ErrorFact(
                name=node.name,
                module=here[0],
                own_code=_constant(node, "code") is not None,
                words=first_sentence(ast.get_docstring(node)),
                **values,
            )
        )
    return sorted(found, key=lambda one: (one.code, one.module, one.name))


# --- commands ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option. ``value``: placeholder of its value, empty for a flag."""

    names: tuple[str, ...]
    value: str
    words: str
    default: str
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of one program; ``path`` is empty for the program itself."""

    program: str
    path: tuple[str, ...]
    words: str
    arguments: tuple[str, ...]
    options: tuple[Option, ...]
    hidden: bool = False

    @property
    def line(self) -> str:
        """As it is typed, without options."""
        return " ".join((self.program, *self.path))

    def option(self, name: str) -> Option | None:
        """The option of that name."""
        return next((one for one in self.options if name in one.names), None)


def click_commands(program: str, app: Any) -> list[Command]:
    """Every command of a typer application."""
    return list(_walk(program, (), typer.main.get_command(app), hidden=False))


def _walk(program: str, path: tuple[str, ...], command: Any, *, hidden: bool) -> Any:
    hidden = hidden or command.hidden
    below = getattr(command, "commands", None)
    if below is not None:
        for name in below:
            yield from _walk(program, (*path, name), below[name], hidden=hidden)
        return
    arguments, options = [], []
    for one in command.params:
        if one.param_type_name == "argument":
            metavar = (one.metavar or one.name or "").upper()
            many = "..." if one.nargs == -1 else ""
            arguments.append((metavar if one.required else f"[{metavar}]") + many)
        elif "--help" not in one.opts:
            options.append(_click_option(one))
    yield Command(
        program=program,
        path=path,
        words=first_sentence(command.help),
        arguments=tuple(arguments),
        options=tuple(options),
        hidden=hidden,
    )


def _click_option(one: Any) -> Option:
    default = "" if one.default is None or one.is_flag or callable(one.default) else str(one.default)
    return Option(
        names=(*one.opts, *one.secondary_opts),
        value="" if one.is_flag else "NUMBER" if "int" in one.type.name else one.type.name.upper(),
        words=(one.help or "").strip() + (f" Environment: `{one.envvar}`." if one.envvar else ""),
        default=default,
        required=bool(one.required),
    )


def argparse_commands(program: str, parser: Any) -> list[Command]:
    """Every command of an argparse parser with sub-commands."""
    (below,) = [one for one in parser._actions if one.choices]
    helps = {one.dest: one.help for one in below._choices_actions}
    found = []
    for name, sub in below.choices.items():
        arguments = tuple(_argument(one) for one in sub._actions if not one.option_strings)
        options = tuple(
            Option(
                names=tuple(one.option_strings),
                value="" if one.nargs == 0 else one.dest.upper(),
                words=one.help or "",
                default=""
                if one.default in (None, [], "", os.cpu_count()) or one.nargs == 0
                else str(one.default),
                required=one.required,
            )
            for one in sub._actions
            if one.option_strings and one.dest != "help"
        )
        words = helps[name][:1].upper() + helps[name][1:] + "."
        found.append(
            Command(program=program, path=(name,), words=words, arguments=arguments, options=options)
        )
    return found


def _argument(one: Any) -> str:
    name = one.dest.upper()
    return {"?": f"[{name}]", "+": f"{name}..."}.get(one.nargs, name)


@functools.cache
def commands() -> list[Command]:
    """Every command of the four programs."""
    from broker.cli import app as broker_app
    from client.cli import app as node_app
    from policies.verify.cli import _parser
    from sandbox.cli import app as sandbox_app

    return [
        *click_commands("iriai-broker", broker_app),
        *click_commands("iriai-node", node_app),
        *argparse_commands("iriai-verify", _parser()),
        *click_commands("iriai-sandbox", sandbox_app),
    ]


# --- routes ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route of the API. ``body``: name → kind, in order; None if it reads none of a fixed form."""

    method: str
    path: str
    role: str
    words: str
    body: dict[str, str] | None


def routers() -> list[Any]:
    """The routers of the API's rooms, in the order in which the application takes them in."""
    from broker.app import ROOMS, ROOT_ROOMS

    return [*ROOMS, *ROOT_ROOMS]


def routes(given: list[Any] | None = None) -> list[Route]:
    """Every route below ``/api/v1``, and those beside it."""
    from broker.api import dsp, signed
    from broker.api.declared import declared
    from broker.app import API, ROOT_ROOMS

    known, found = {**signed.ROLES, **dsp.ROLES}, []
    for router in routers() if given is None else given:
        for one in router.routes:
            roles = [known[dep.call] for dep in one.dependant.dependencies if dep.call in known]
            path = ("" if router in ROOT_ROOMS else API) + one.path
            said = declared(one.endpoint)
            found += [
                Route(
                    method=method,
                    path=path,
                    role=roles[0] if roles else (said and said.role) or "UNKNOWN",
                    words=first_sentence(one.endpoint.__doc__),
                    body=_body(said),
                )
                for method in sorted(one.methods)
            ]
    return found


def _body(said: Any) -> dict[str, str] | None:
    from broker.api.bodies import Body

    model = None if said is None else said.takes
    if model is None or not issubclass(model, Body):
        return None
    return {name: _kind(field) for name, field in model.model_fields.items()}


def _kind(field: Any) -> str:
    text = str(field.annotation)
    base = "text"
    if "list" in text:
        base = "list of text"
    elif "dict" in text:
        base = "object"
    patterns = re.findall(r"pattern='([^']+)'", str(field.metadata) + text)
    shown = base + (f" `{patterns[0]}`" if patterns else "")
    return shown if field.is_required() else shown + ", optional"


def fleet_operations(root: Path = ROOT) -> list[str]:
    """Names of the engine's nine operations."""
    text = (root / "broker/federation/flower/names.py").read_text("utf-8")
    return re.findall(r'^    "([a-z-]+)": \(fleet_handlers', text, flags=re.MULTILINE)


# --- entries ---


def written_types(root: Path = ROOT) -> set[str]:
    """Names of the entry types that broker or node name at all: none of them only reads a type."""
    from policies.log.schema import EntryType

    texts = [
        path.read_text("utf-8")
        for path in sources(root)
        if path.relative_to(root).parts[0] in {"broker", "client"}
    ]
    return {
        str(kind)
        for kind in EntryType
        if any(re.search(rf'\bEntryType\.{kind.name}\b|"{re.escape(kind)}"', text) for text in texts)
    }


# --- settings and bounds ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: where, name, kind and default as TOML; ``words`` where the code has them."""

    file: str
    table: str
    name: str
    kind: str
    default: str
    words: str

    @property
    def key(self) -> str:
        """As the words file and messages name it."""
        return f"{self.file}: {self.table + '.' if self.table else ''}{self.name}"


def settings() -> list[Setting]:
    """Every setting of ``broker.toml`` and ``node.toml``."""
    from broker.settings import DspSettings, Settings
    from client.settings import LocalRules, NodeSettings

    return [
        *_settings("broker.toml", "", Settings, skip={"dir", "config", "dsp"}),
        *_settings("broker.toml", "dsp", DspSettings, skip=set()),
        *_settings("node.toml", "", NodeSettings, skip={"local"}),
        *_settings("node.toml", "local", LocalRules, skip=set()),
    ]


def _settings(file: str, table: str, kind: Any, *, skip: set[str]) -> list[Setting]:
    import dataclasses

    documented = dict(
        re.findall(
            r"^    +(\w+): (.+?)(?=\n +\w+: |\Z)", inspect.getdoc(kind) or "", re.MULTILINE | re.DOTALL
        )
    )
    found = []
    for one in dataclasses.fields(kind):
        if one.name in skip:
            continue
        missing = one.default is dataclasses.MISSING
        found.append(
            Setting(
                file=file,
                table=table,
                name=one.name,
                kind=_toml_kind(str(one.type)),
                default="required" if missing else _toml(one.default),
                words=first_sentence(documented.get(one.name)),
            )
        )
    return found


def _toml_kind(annotation: str) -> str:
    for part, words in (
        ("tuple", "list of text"),
        ("bool", "true or false"),
        ("int", "number"),
        ("Path", "path"),
    ):
        if part in annotation:
            return words
    return "text"


def _toml(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def environment_names(root: Path = ROOT) -> set[str]:
    """Every environment variable of ours that the source names."""
    return {
        name
        for path in sources(root)
        for name in re.findall(r"\bIRIAI_[A-Z]+(?:_[A-Z]+)*(?![A-Z_])", path.read_text("utf-8"))
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A named bound, its value as written, and the reason beside it."""

    group: str
    name: str
    value: str
    words: str


def bounds(root: Path = ROOT) -> list[Bound]:
    """Every bound of ``policies/limits.py``, in order, under the comment above it."""
    found, group = [], ""
    for line in (root / "policies/limits.py").read_text("utf-8").splitlines():
        heading = re.fullmatch(r"# (?!SPDX)(.+)", line)
        bound = re.fullmatch(r"([A-Z0-9_]+): Final = (.+?)(?:  # (.+))?", line)
        if heading:
            group = re.sub(
                r" \((?:[a-z0-9-]+\.md[^)]*|client/[^)]*|broker/[^)]*|RFC 9421)\)$", "", heading[1]
            )
        elif bound:
            found.append(Bound(group=group, name=bound[1], value=bound[2], words=bound[3] or ""))
    return found
