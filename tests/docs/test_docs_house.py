# SPDX-License-Identifier: Apache-2.0
"""What every file of the project keeps: its licence line, its docstrings, its error codes, its package names."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from tests.docs import facts
from tests.docs.commandlines import documents
from tests.docs.facts import ROOT

SPDX = "# SPDX-License-Identifier: Apache-2.0"
# one fact, seen from both ends of the wire: the code is the same on purpose
SHARED = {
    "engine.environment": {"broker", "client"},
    "engine.error": {"broker", "client"},
    "engine.flower-version": {"broker", "client"},
    "identity.key-file": {"broker", "client"},
}
# to who asks, these are indistinguishable from their parents, on purpose
NO_OWN_CODE = {"NotPartyError"}


# --- licence ---


def without_licence(root: Path) -> list[str]:
    """Source files whose first line (after a ``#!`` line) is not the licence line; empty files have nothing to license."""
    found = []
    for folder in (*facts.PACKAGES, "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            lines = path.read_text("utf-8").splitlines()
            if lines and lines[0].startswith("#!"):
                lines = lines[1:]
            if lines and lines[0] != SPDX:
                found.append(str(path.relative_to(root)))
    return found


def test_every_source_file_begins_with_its_licence():
    assert without_licence(ROOT) == []


def test_a_file_without_licence_is_named(tmp_path):
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker/planted.py").write_text('"""Planted."""\n', "utf-8")
    (tmp_path / "broker/empty.py").write_text("", "utf-8")
    (tmp_path / "broker/script.py").write_text(f"#!/usr/bin/env python\n{SPDX}\n", "utf-8")
    assert without_licence(tmp_path) == ["broker/planted.py"]


def test_tests_have_no_packages_and_no_name_twice():
    """A ``tests/broker/__init__.py`` would shadow the package ``broker``; equal file names hide one another."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    names = defaultdict(list)
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name != "conftest.py":  # pytest's own name, one for a folder
            names[path.name].append(path)
    assert {name for name, paths in names.items() if len(paths) > 1} == set()


def test_the_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["license"] == "Apache-2.0"


# --- docstrings ---


def without_docstring(root: Path) -> list[str]:
    """Public names that say nothing about themselves; public is what ``__all__`` lists, or has no underscore."""
    found = []
    for path in facts.sources(root):
        if "migrations" in path.parts or path.name == "__main__.py":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        module = facts.module_of(root, path)
        if tree.body and ast.get_docstring(tree) is None and _has_code(tree):
            found.append(module)
        public = exported(tree)
        found += [
            f"{module}.{name}" for name in _silent(tree, "") if public is None or name.split(".")[0] in public
        ]
    return found


def exported(tree: ast.Module) -> set[str] | None:
    """Names of ``__all__``; None if the module has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def _has_code(tree: ast.Module) -> bool:
    return any(
        isinstance(one, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom) for one in tree.body
    )


def _silent(node: ast.AST, above: str):
    for one in ast.iter_child_nodes(node):
        if not isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or one.name.startswith(
            "_"
        ):
            continue
        decorators = {ast.unparse(each).split(".")[-1] for each in one.decorator_list}
        if (
            ast.get_docstring(one) is None
            and not decorators & {"overload", "override", "setter"}
            and not _inherited(one, node)
        ):
            yield above + one.name
        if isinstance(one, ast.ClassDef):
            yield from _silent(one, f"{above}{one.name}.")


def _inherited(one: ast.AST, around: ast.AST) -> bool:
    """A method that a library's base class defines: uvicorn's server, a test double of a stream."""
    return isinstance(around, ast.ClassDef) and bool(around.bases) and not isinstance(one, ast.ClassDef)


def test_every_public_name_says_what_it_gives():
    assert without_docstring(ROOT) == []


def test_a_public_name_without_a_docstring_is_named(tmp_path):
    (tmp_path / "client").mkdir()
    (tmp_path / "client/planted.py").write_text(
        '"""Planted."""\n\n\ndef _own():\n    pass\n\n\ndef planted():\n    pass\n\n\n'
        'class Kind:\n    """Kind."""\n\n    def method(self):\n        pass\n',
        "utf-8",
    )
    assert without_docstring(tmp_path) == ["client.planted.planted", "client.planted.Kind.method"]


# --- error codes ---


def code_complaints(found: list[facts.ErrorFact]) -> list[str]:
    """Classes without a code, codes of another form, codes that two classes have."""
    wrong = [f"{one.name}: no code" for one in found if not one.own_code and one.name not in NO_OWN_CODE]
    owners = defaultdict(list)
    for one in found:
        if one.own_code:
            owners[one.code].append(one)
            if not re.fullmatch(r"[a-z]+\.[a-z]+(-[a-z]+)*", one.code):
                wrong.append(f"{one.name}: {one.code} is not lower.dotted")
            if not one.name.endswith("Error"):
                wrong.append(f"{one.name}: a name that does not end in Error")
    for code, classes in owners.items():
        packages = [one.package for one in classes]
        if len(classes) > 1 and (SHARED.get(code) != set(packages) or len(packages) != len(set(packages))):
            wrong.append(f"{code}: " + ", ".join(f"{one.module}.{one.name}" for one in classes))
    return wrong


def test_every_error_has_a_code_of_its_own():
    assert code_complaints(facts.errors()) == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('class PlantedError(NodeError):\n    """Planted."""\n', "PlantedError: no code"),
        (
            'class PlantedError(NodeError):\n    """Planted."""\n\n    code = "node.busy"\n',
            "node.busy: client.errors.NodeBusyError, client.planted.PlantedError",
        ),
        (
            'class PlantedError(NodeError):\n    """Planted."""\n\n    code = "Node_planted"\n',
            "PlantedError: Node_planted is not lower.dotted",
        ),
        (
            'class Planted(NodeError):\n    """Planted."""\n\n    code = "node.planted"\n',
            "Planted: a name that does not end in Error",
        ),
    ],
)
def test_a_planted_error_is_named(tmp_path, body, complaint):
    for file in ("client/errors.py", "policies/errors.py"):
        (tmp_path / file).parent.mkdir()
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "client/planted.py").write_text(f"from client.errors import NodeError\n\n\n{body}", "utf-8")
    assert complaint in set(code_complaints(facts.errors(tmp_path))) - set(code_complaints(facts.errors()))


def test_exit_codes_are_those_of_the_table():
    from tests.docs.generate import EXIT_CODES

    known = {number for number, _ in EXIT_CODES}
    assert {one.exit_code for one in facts.errors()} <= known
    assert {one.http_status for one in facts.errors()} <= {
        400,
        401,
        403,
        404,
        405,
        408,
        409,
        410,
        412,
        413,
        421,
        422,
        428,
        429,
        500,
        501,
        502,
        503,
        507,
    }


# --- package names ---


def test_the_four_package_names_belong_to_iriai_alone():
    """``broker`` and ``policies`` are also names of unrelated packages, which would overwrite ours."""
    from client.doctor import packages

    assert packages() == "no name collision"
    found = importlib.metadata.packages_distributions()
    assert {name: set(found.get(name, ["iriai"])) for name in facts.PACKAGES} == {
        key: {"iriai"} for key in facts.PACKAGES
    }


def test_a_foreign_package_of_our_name_is_named(monkeypatch):
    from client.doctor import packages
    from client.errors import DoctorFailedError

    real = importlib.metadata.packages_distributions
    monkeypatch.setattr(
        importlib.metadata,
        "packages_distributions",
        lambda: {**real(), "broker": ["iriai", "foreign-broker"]},
    )
    with pytest.raises(DoctorFailedError, match="broker also of foreign-broker") as refused:
        packages()
    assert "install.name-collision" in refused.value.remedy


def test_no_module_is_called_like_a_package():
    names = {f"{one}.py" for one in facts.PACKAGES}
    assert [path for path in (ROOT / "tests").rglob("*.py") if path.name in names] == []


def test_every_package_says_that_it_is_typed():
    assert [one for one in facts.PACKAGES if not (ROOT / one / "py.typed").exists()] == []


# --- documents ---


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(path):
    text = path.read_text("utf-8")
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (path.parent / file) if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(target)
    assert wrong == []


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as code hosts make them."""
    heads = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", sorted((ROOT / "docs/adr").glob("*.md")), ids=lambda path: path.name)
def test_a_decision_has_its_parts(path):
    text = path.read_text("utf-8")
    assert re.match(rf"# {path.name[:4]}: ", text)
    assert [
        one
        for one in ("Status: ", "## Context", "## Decision", "## Consequences", "## Refused")
        if one not in text
    ] == []


AVOIDED = ("blockchain", "anonymised", "guaranteed", "client id", "dataset version")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_keeps_to_the_vocabulary(path):
    text = path.read_text("utf-8").lower()
    assert [word for word in AVOIDED if word in text] == []
