"""The server is what its OpenAPI document says, for what conforms to it and for what does not; and damaged requests are
answered or refused. `python -m fuzz.flood` does the latter with a hundred thousand."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from edgellm.server import ServerSettings, create_app
from fuzz.flood import flood
from fuzz.http_server import packages
from fuzz.http_text import BODIES, FORMS, path_of

TRUE = [
    not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
    checks.response_schema_conformance, checks.response_headers_conformance,
]  # fmt: skip
VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def document() -> Any:
    app = create_app(packages(), ServerSettings(threads=1, hosts=(), max_seconds=0.2), preload="tiny")
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def operations(document: Any) -> list[Any]:
    return [found.ok() for found in document.get_all_operations()]


def examples(operation: Any, mode: GenerationMode, number: int, check: Callable[[Any], None]) -> None:
    """The same ones each time."""

    @settings(
        max_examples=number, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        check(case)

    each()


def test_valid_data(document: Any) -> None:
    """Half of it lies about requests that are answered: else most would be refused for what a schema does not say."""
    found: Counter[tuple[str, int]] = Counter()
    for operation in operations(document):
        near = [body for name, body in (BODIES | FORMS).items() if path_of(name) == operation.path]

        numbers = count()

        def check(case: Any, near: list[dict[str, Any]] = near, numbers: Iterator[int] = numbers) -> None:
            number, lies_about = divmod(next(numbers), 2)
            if lies_about and near:
                few = list(case.body)[: number // len(near)] if isinstance(case.body, dict) else []
                case.body = copy.deepcopy(near[number % len(near)]) | {name: case.body[name] for name in few}
            elif lies_about and case.path_parameters:
                case.path_parameters["name"] = "tiny"
            response = case.call()
            case.validate_response(response, checks=TRUE)
            found[case.path, response.status_code] += 1

        examples(operation, VALID, 12, check)
    assert {path for path, status in found if status == 200} == set(document.raw_schema["paths"]) - {"/openapi.json"}, (
        "which was asked for to begin with"
    )
    assert {status for _, status in found} == {200, 400, 404}


def test_invalid_data_is_refused(document: Any) -> None:
    found: Counter[int] = Counter()
    for operation in operations(document):
        if operation.method == "get":
            continue

        def check(case: Any) -> None:
            response = case.call()
            case.validate_response(response, checks=[*TRUE, checks.negative_data_rejection])
            found[response.status_code] += 1

        examples(operation, INVALID, 12, check)
    assert set(found) <= {400, 404, 415}
    assert sum(found.values()) == 9 * 12


def test_damaged_requests_are_answered_or_refused() -> None:
    found, problems = flood(400)
    assert problems == []
    assert all(kind.outcomes for kind in found)
    answered = sum(count for kind in found for outcome, count in kind.outcomes.items() if "200" in outcome)
    assert 20 < answered < 380
