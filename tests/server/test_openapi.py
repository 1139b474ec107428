"""The server conforms to its OpenAPI document (schemathesis)."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection
from server_in_process import Running, running

from cliper.segmenter import Segmenter
from cliper.server.schemas import SettingsChange
from cliper.settings import Settings, setting_limits

pytestmark = pytest.mark.full

FORM = "multipart/form-data"
REFUSED = (400, 401, 404, 413, 415, 422)
OPERATIONS = [("GET", path) for path in ("/healthz", "/metrics", "/v1/models", "/health")]
OPERATIONS += [("POST", path) for path in ("/v1/segment", "/v1/export", "/v1/predict", "/setup", "/predict")]


@pytest.fixture(scope="module")
def guarded(tiny: Segmenter) -> Iterator[Running]:
    with running(tiny, token="secret", patches=64) as found:
        yield found


@pytest.fixture(scope="module")
def described(guarded: Running) -> Any:
    config = schemathesis.Config()
    # A description cannot say what is settled by the meaning of a text, by a picture, or by the model.
    config.projects.default.checks.positive_data_acceptance.expected_statuses = ["2xx", "400", "404", "422"]
    # A text that is too long may make its whole body too large.
    config.projects.default.checks.negative_data_rejection.expected_statuses = [*map(str, REFUSED)]
    return schemathesis.openapi.from_asgi("/openapi.json", guarded.client.app, config=config)


def test_all_operations_are_described(described: Any) -> None:
    found = {(one.ok().method.upper(), one.ok().path) for one in described.get_all_operations()}
    assert found == set(OPERATIONS)


# Without a body and without a token nothing can be wrong.
TRIED = [(mode, *operation) for operation in OPERATIONS for mode in GenerationMode]
TRIED.remove((GenerationMode.NEGATIVE, "GET", "/healthz"))


@pytest.mark.parametrize(("mode", "method", "path"), TRIED, ids=lambda part: getattr(part, "value", part))
def test_operations_conform_to_their_description(
    described: Any, image_file: bytes, method: str, path: str, mode: GenerationMode
) -> None:
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=50 if method == "POST" else 5,
        derandomize=True,
        database=None,
        deadline=None,  # a busy machine may take any time for one
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=described[path][method].as_strategy(generation_mode=mode))
    def tried(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and sum(statuses.values()) % 2:
            _make_possible(case, image_file)
        assume(mode is GenerationMode.POSITIVE or not _good_body(described.raw_schema, case))
        # A form is text: a number that is to be a name arrives as one, and a list of one name as that name.
        unsaid = [negative_data_rejection] if case.media_type == FORM else []
        response = case.call_and_validate(headers={"Authorization": "Bearer secret"}, excluded_checks=unsaid)
        statuses[response.status_code] += 1

    tried()
    # No generated text is Label Studio's XML, and no generated maps fit their classes.
    if mode is GenerationMode.POSITIVE and path not in ("/predict", "/v1/export"):
        assert statuses[200] > 0, statuses


def _good_body(description: dict[str, Any], case: schemathesis.Case) -> bool:
    """Whether a body is as described after all: what is wrong for one choice may be right for another, as null is."""
    if not isinstance(case.body, dict):
        return False
    wanted = description["paths"][case.path][case.method.lower()]["requestBody"]["content"][case.media_type]["schema"]
    body = json.loads(json.dumps(case.body, default=lambda _: ""))  # bytes are text in a description
    return jsonschema_rs.is_valid({**wanted, "components": description["components"]}, body)


def _make_possible(case: schemathesis.Case, file: bytes) -> None:
    """An image and the served model, which the description does not contain, so that some requests succeed."""
    if isinstance(case.body, dict) and "image" in case.body:
        form = case.media_type == FORM
        case.body["image"] = file if form else base64.b64encode(file).decode()
        case.body.pop("model", None)
        case.body.pop("refiner", None)


def test_settings_have_the_names_and_limits_of_the_package() -> None:
    # A request names no model: it would be fetched, or read from a path of the caller's choice.
    schema = SettingsChange.model_json_schema()["properties"]
    assert set(schema) == {field.name for field in dataclasses.fields(Settings)} - {"proxy_model", "refine_vae"}
    narrower = {"attention", "refine_size", "refine_max_patches", "refine_balance"}
    for name in set(schema) - narrower:
        first = schema[name]["anyOf"][0].get("items", schema[name]["anyOf"][0])
        limits = setting_limits(name)
        if len(limits) == 1:
            assert tuple(first["enum"]) == limits[0], name
        elif limits:
            assert (first["minimum"], first["maximum"]) == limits, name
    assert "proxy" not in schema["attention"]["anyOf"][0]["enum"]
    assert [schema[name]["anyOf"][0]["maximum"] for name in ("refine_size", "refine_balance")] == [512, 15]
