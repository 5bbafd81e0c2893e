# SPDX-License-Identifier: Apache-2.0
"""docs/reference/openapi.json is the document of this code, is a valid one, and a change of it is told for what it is."""

from __future__ import annotations

import copy
import difflib
import json
import re

import pytest
from fastapi import APIRouter
from fastapi.routing import iter_route_contexts

from broker.api.declared import declared
from broker.api.document import document, operations, reference_rows, text_of
from broker.app import bare
from tests.docs.facts import ROOT
from tests.docs.openapi_changes import changes

CHECKED_IN = ROOT / "docs/reference/openapi.json"


@pytest.fixture(scope="module")
def made():
    return document(bare())


@pytest.fixture
def old(made):
    return copy.deepcopy(made)


def test_the_checked_in_document_is_the_one_that_the_code_gives(made):
    text = CHECKED_IN.read_text("utf-8")
    lines = list(
        difflib.unified_diff(
            text.splitlines(), text_of(made).splitlines(), "docs/reference", "the code", n=2, lineterm=""
        )
    )
    told = [str(one) for one in changes(json.loads(text), made)]
    assert lines == [], "\n".join(
        ["run: python tests/docs/generate.py", *told, *(lines[:200] if told else ["words only", *lines[:60]])]
    )


def test_every_route_below_the_api_declares_what_it_gives(made):
    app = bare()
    silent = [one.path for one in iter_route_contexts(app.routes) if declared(one.endpoint) is None]
    assert silent == []
    assert [one.path for _, one in operations(app) if one.role == "UNKNOWN"] == []


def test_a_planted_route_that_declares_nothing_is_found():
    app, planted = bare(), APIRouter()

    @planted.get("/planted")
    async def one() -> None:
        """Planted."""

    app.include_router(planted, prefix="/api/v1")
    assert [one.path for one in iter_route_contexts(app.routes) if declared(one.endpoint) is None] == [
        "/api/v1/planted"
    ]
    assert "/api/v1/planted" not in document(app)["paths"]


def test_it_is_valid_openapi_and_every_schema_is_a_valid_one(made):
    import jsonschema_rs
    from fastapi.openapi.models import OpenAPI

    OpenAPI.model_validate(made)
    for schema in made["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    assert made["openapi"].startswith("3.1")


def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own(made):
    names = set(re.findall(r'"#/components/(schemas|responses)/([^"]+)"', text_of(made)))
    assert all(name in made["components"][kind] for kind, name in names)
    unused = set(made["components"]["schemas"]) - {name for kind, name in names if kind == "schemas"}
    assert unused == set()
    ids = [one["operationId"] for methods in made["paths"].values() for one in methods.values()]
    assert len(set(ids)) == len(ids)


def test_every_operation_documents_its_refusals(made):
    for path, methods in made["paths"].items():
        for method, one in methods.items():
            where, told = f"{method} {path}", set(one["responses"])
            if one["security"] == [{"signed": []}]:
                assert {"400", "401", "403", "409", "413", "422", "429", "503"} <= told, where
            if "{" in path:
                assert "404" in told, where
            if method == "post" and one["security"] == [{"signed": []}]:
                assert any(each["name"] == "Idempotency-Key" for each in one["parameters"]), where
            assert any(status < "300" for status in told), where


def test_each_operation_is_one_row_of_a_page(made):
    rows = reference_rows(made)
    assert len(rows) == sum(len(methods) for methods in made["paths"].values())
    one = next(row for row in rows if (row.method, row.path) == ("POST", "/api/v1/operator/runs"))
    assert (one.takes, one.gives, one.role) == ("RunBody", "201 RunOpened", "operator")
    assert "503" in one.refusals


def test_answers_are_open_and_requests_closed(made):
    schemas = made["components"]["schemas"]
    assert "additionalProperties" not in schemas["RunShown"]
    assert schemas["RunBody"]["additionalProperties"] is False
    closed = document(bare(), closed=True)["components"]["schemas"]
    assert closed["RunShown"]["additionalProperties"] is False


# --- what changed ---


def told(old, new) -> list[str]:
    return [str(one) for one in changes(old, new)]


RUNS = "/api/v1/operator/runs"


def test_nothing_changed_is_nothing_told(made, old):
    assert told(old, made) == []


def test_a_path_that_is_gone_breaks_and_a_new_one_adds(made, old):
    old["paths"]["/api/v1/older"] = {"get": made["paths"]["/api/v1/broker"]["get"]}
    assert told(old, made) == ["BREAKING GET /api/v1/older: is gone"]
    assert told(made, old) == ["additive GET /api/v1/older: is new"]


def test_a_field_of_a_request_that_is_required_now_breaks(made, old):
    body = old["components"]["schemas"]["RunBody"]
    body["required"].remove("recipe")
    assert told(old, made) == [f"BREAKING POST {RUNS} body: field recipe is required now"]
    assert told(made, old) == [f"additive POST {RUNS} body: field recipe is optional now"]
    del body["properties"]["recipe"]
    assert told(old, made) == [f"BREAKING POST {RUNS} body: field recipe is new"]


def test_a_field_of_an_answer_that_is_gone_or_may_be_missing_breaks(made, old):
    shown = old["components"]["schemas"]["RunOpened"]
    shown["properties"]["more"] = {"type": "string"}
    assert told(old, made) == [f"BREAKING POST {RUNS} 201: field more is gone"]
    assert told(made, old) == [f"additive POST {RUNS} 201: field more is new"]
    del shown["properties"]["more"]
    shown["required"].remove("state")
    assert told(made, old) == [f"BREAKING POST {RUNS} 201: field state is optional now"]


def test_a_narrower_request_breaks_and_a_narrower_answer_does_not(made, old):
    old["components"]["schemas"]["RunBody"]["properties"]["recipe"]["maxLength"] = 90
    assert told(old, made) == [f"BREAKING POST {RUNS} body.recipe: maxLength 90 is now 80"]
    assert told(made, old) == [f"additive POST {RUNS} body.recipe: maxLength 80 is now 90"]
    old = copy.deepcopy(made)
    old["components"]["schemas"]["RunOpened"]["properties"]["state"] = {
        "anyOf": [{"type": "string"}, {"type": "null"}]
    }
    assert told(old, made) == [f"additive POST {RUNS} 201.state: type null or string is now string"]
    assert told(made, old) == [f"BREAKING POST {RUNS} 201.state: type string is now null or string"]


def test_another_list_of_values_is_told_for_both_directions(made, old):
    kinds = old["components"]["schemas"]["AmendmentBody"]["properties"]["kind"]
    kinds["enum"] = [*kinds["enum"], "replace"]
    where = "POST /api/v1/contracts/{digest}/amendments body.kind"
    assert told(old, made) == [f"BREAKING {where}: the list of its values changed"]
    assert told(made, old) == [f"additive {where}: the list of its values changed"]


def test_a_parameter_that_is_gone_or_needed_breaks(made, old):
    asked = old["paths"]["/api/v1/runs"]["get"]["parameters"]
    asked.append({"name": "state", "in": "query", "required": True, "schema": {"type": "string"}})
    assert told(old, made) == ["BREAKING GET /api/v1/runs: query parameter state is gone"]
    assert told(made, old) == ["BREAKING GET /api/v1/runs: query parameter state is new"]
    asked[-1]["required"] = False
    assert told(made, old) == ["additive GET /api/v1/runs: query parameter state is new"]


def test_another_role_or_another_good_status_breaks_and_a_new_refusal_does_not(made, old):
    one = old["paths"]["/api/v1/broker"]["get"]
    one["x-iriai-role"] = "member"
    one["responses"]["202"] = one["responses"].pop("200")
    one["responses"]["451"] = one["responses"]["422"]
    where = "GET /api/v1/broker"
    assert told(made, old) == [
        f"BREAKING {where}: role anyone is now member",
        f"BREAKING {where}: status 200 is gone",
        f"BREAKING {where}: status 202 is new",
        f"additive {where}: status 451 is new",
    ]
