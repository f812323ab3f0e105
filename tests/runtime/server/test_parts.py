"""The server's parts by themselves."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest_of_server import Server
from edgellm.errors import OptionError
from edgellm.server.pool import names_of
from edgellm.server.stops import StopCut

texts = st.text("ab\n", max_size=20)


@given(texts, st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 20)))
def test_a_text_is_cut_before_the_first_stop_string(text: str, stops: list[str], places: list[int]) -> None:
    cut, edges = StopCut(stops), [0, *sorted(min(place, len(text)) for place in places), len(text)]
    told = "".join(cut.add(text[start:stop]) for start, stop in pairwise(edges)) + cut.flush()
    _, first = min(
        [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text], default=(0, None)
    )
    assert (told, cut.found) == (text[:first], any(stop in text for stop in stops))


def test_only_what_may_be_a_stop_string_is_held_back() -> None:
    cut = StopCut(["###", "\n\n"])
    assert [cut.add(piece) for piece in ("a#", "#b", "\n", "c", "##")] == ["a", "##b", "", "\nc", ""]
    assert cut.flush() == "##"


def test_two_packages_of_one_name() -> None:
    with pytest.raises(OptionError, match="two packages are called a: x/a and y/a; name one"):
        names_of([("a", Path("x/a")), ("a", Path("y/a"))])


def test_the_document_is_whole(server: Server) -> None:
    document = server.http.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/", "/v1/models", "/v1/models/{name}", "/health", "/metrics", "/openapi.json",
        "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/rerank", "/tokenize",
        "/detokenize", "/v1/audio/transcriptions", "/v1/audio/translations",
    }  # fmt: skip
    known = document["components"]["schemas"]
    text = json.dumps(document)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in known
    assert known["ChatRequest"]["additionalProperties"] is False
    assert "Message" in known
