"""Which of several GGUF files: names as they are met in repositories."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgellm.errors import CheckpointNotFoundError
from edgellm_export.sources.gguf_choice import choose, gguf_choices, is_only_gguf, split_tag
from edgellm_export.sources.opening import open_checkpoint
from gguf_files import split, tiny_llama

REPOSITORY = [
    "README.md",
    "config.json",
    "imatrix_unsloth.gguf_file",
    "model-imatrix.gguf",
    "mmproj-F16.gguf",
    "Tiny-1B-Instruct-Q4_K_M.gguf",
    "Tiny-1B-Instruct-UD-Q4_K_XL.gguf",
    "Tiny-1B-Instruct.q8_0.gguf",
    "Tiny-1B-Instruct.IQ2_XXS.gguf",
    "BF16/Tiny-1B-Instruct-BF16-00002-of-00002.gguf",
    "BF16/Tiny-1B-Instruct-BF16-00001-of-00002.gguf",
    "F32/model-00001-of-00001.gguf",
]
CHOICES = gguf_choices(REPOSITORY)


def test_models_are_grouped_and_what_lies_beside_them_left_out() -> None:
    assert [choice.label for choice in CHOICES] == ["BF16", "F32", "Q4_K_M", "UD-Q4_K_XL", "IQ2_XXS", "q8_0"]
    assert CHOICES[0].files == (
        "BF16/Tiny-1B-Instruct-BF16-00001-of-00002.gguf",
        "BF16/Tiny-1B-Instruct-BF16-00002-of-00002.gguf",
    )


FOUND = {
    "Q4_K_M": "Tiny-1B-Instruct-Q4_K_M.gguf",
    "q4_k_m": "Tiny-1B-Instruct-Q4_K_M.gguf",
    "Q8_0": "Tiny-1B-Instruct.q8_0.gguf",
    "iq2_xxs": "Tiny-1B-Instruct.IQ2_XXS.gguf",
    "UD-Q4_K_XL": "Tiny-1B-Instruct-UD-Q4_K_XL.gguf",
    "Q4_K_XL": "Tiny-1B-Instruct-UD-Q4_K_XL.gguf",
    "bf16": "BF16/Tiny-1B-Instruct-BF16-00001-of-00002.gguf",
    "F32": "F32/model-00001-of-00001.gguf",
    "Tiny-1B-Instruct.q8_0.gguf": "Tiny-1B-Instruct.q8_0.gguf",
    "BF16/Tiny-1B-Instruct-BF16-00002-of-00002.gguf": "BF16/Tiny-1B-Instruct-BF16-00001-of-00002.gguf",
}


@pytest.mark.parametrize("tag", FOUND)
def test_tags_pick_one(tag: str) -> None:
    assert choose("org/tiny", CHOICES, tag).files[0] == FOUND[tag]


@pytest.mark.parametrize("tag", ["Q4_K", "Q4", "K_M", "Q5_K_M", "Q8", "0", ""])
def test_other_tags_list_what_there_is(tag: str) -> None:
    message = (
        f"org/tiny has no GGUF models called {tag!r}: BF16, F32, Q4_K_M, UD-Q4_K_XL, IQ2_XXS, q8_0; "
        "say which, as in org/tiny:BF16"
    )
    with pytest.raises(CheckpointNotFoundError, match=re.escape(message)):
        choose("org/tiny", CHOICES, tag)


def test_without_a_tag_there_must_be_one() -> None:
    with pytest.raises(CheckpointNotFoundError, match="holds several GGUF models: BF16, F32,"):
        choose("org/tiny", CHOICES, None)
    assert choose("org/tiny", gguf_choices(["a.gguf", "mmproj.gguf"]), None).files == ("a.gguf",)


def test_models_with_one_label_are_told_apart_by_name() -> None:
    choices = gguf_choices(["a-Q4_0.gguf", "b-Q4_0.gguf"])
    with pytest.raises(CheckpointNotFoundError, match=r"2 GGUF models called 'Q4_0': a-Q4_0.gguf, b-Q4_0.gguf; say"):
        choose("x", choices, "Q4_0")
    assert choose("x", choices, "b-Q4_0.gguf").files == ("b-Q4_0.gguf",)


def test_an_exact_label_wins() -> None:
    choices = gguf_choices(["m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"])
    assert choose("x", choices, "Q4_K_M").files == ("m-Q4_K_M.gguf",)
    assert choose("x", choices, "UD-Q4_K_M").files == ("m-UD-Q4_K_M.gguf",)


def test_a_directory_with_one_model_is_opened(tmp_path: Path) -> None:
    split(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "mmproj-F16.gguf").write_bytes(b"no")
    checkpoint = open_checkpoint(str(tmp_path))
    assert (checkpoint.source["name"], len(checkpoint.tensors)) == ("w-00001-of-00003.gguf", 11)


def test_a_directory_with_several_asks_which(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "tiny-F32.gguf")
    (tmp_path / "Q8_0").mkdir()
    split(tmp_path / "Q8_0", "tiny-Q8_0")
    with pytest.raises(
        CheckpointNotFoundError, match=rf"several GGUF models: Q8_0, F32; say which, as in {tmp_path}:Q8"
    ):
        open_checkpoint(str(tmp_path))
    for tag, name in (("f32", "tiny-F32.gguf"), ("Q8_0", "tiny-Q8_0-00001-of-00003.gguf")):
        assert open_checkpoint(f"{tmp_path}:{tag}").source["name"] == name
    with pytest.raises(CheckpointNotFoundError, match="no GGUF models called 'Q4_0'"):
        open_checkpoint(f"{tmp_path}:Q4_0")


def test_a_model_in_a_folder_needs_no_tag(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    tiny_llama(tmp_path / "sub" / "m-Q4_K_M.gguf")
    for source in (f"{tmp_path}", f"{tmp_path}:Q4_K_M"):
        assert open_checkpoint(source).source["name"] == "m-Q4_K_M.gguf"


def test_what_lies_beside_models_is_none(tmp_path: Path) -> None:
    assert not is_only_gguf({"mmproj-F16.gguf", "README.md"})
    (tmp_path / "mmproj-F16.gguf").write_bytes(b"no")
    with pytest.raises(CheckpointNotFoundError, match=r"has no config\.json"):
        open_checkpoint(str(tmp_path))


def test_tags_of_what_has_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="has no GGUF file of a model; leave 'Q4_0' out"):
        open_checkpoint(f"{tmp_path}:Q4_0")
    file = tiny_llama(tmp_path / "tiny.gguf")
    with pytest.raises(CheckpointNotFoundError, match=r"is a file, .* leave :Q4_0 out"):
        open_checkpoint(f"{file}:Q4_0")
    odd = file.rename(tmp_path / "a:b.gguf")
    assert open_checkpoint(str(odd)).source["name"] == "a:b.gguf"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("org/name:Q4_K_M", ("org/name", "Q4_K_M")),
        ("org/name", ("org/name", None)),
        ("models/tiny:a.gguf", ("models/tiny", "a.gguf")),
        (":x", (":x", None)),
        ("x:", ("x:", None)),
    ],
)
def test_tags_stand_behind_a_colon(source: str, parts: tuple[str, str | None]) -> None:
    assert split_tag(source) == parts
