"""A package beside transformers: agreement on a sound checkpoint, and words for each thing that differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as hf
from click.testing import CliRunner
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

import edgellm_export
from edgellm.cli import cli
from edgellm.errors import ExportError, MissingDependencyError, QualityGateError
from edgellm_export.witness.comparison import compare
from edgellm_export.witness.figures import relative_error
from edgellm_export.witness.findings import Findings
from edgellm_export.witness.process import Reader
from edgellm_export.witness.questions import Question

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def byte_tokenizer() -> Tokenizer:
    alphabet = {token: i for i, token in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose tokens are bytes."""
    path = tmp_path_factory.mktemp("witness") / "checkpoint"
    sizes = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = hf.LlamaConfig(**sizes, num_attention_heads=2, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    hf.set_seed(0)
    hf.LlamaForCausalLM(config).save_pretrained(path)
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(), eos_token="<end>", pad_token="<end>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as reader:
        yield reader


@pytest.fixture(scope="module")
def package(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("witness") / "package"
    return edgellm_export.export(checkpoint, path, precision="fp32", verify_quality=False).path


@pytest.fixture
def changed(checkpoint: Path, package: Path, reader: Reader, tmp_path: Path) -> Callable[..., Findings]:
    """What transformers says of the package when `file` of the checkpoint has other values behind the export."""

    def findings(file: str, **values: Any) -> Findings:
        copy = shutil.copytree(checkpoint, tmp_path / "checkpoint")
        content = json.loads((copy / file).read_text())
        (copy / file).write_text(json.dumps(content | values))
        return compare(package, str(copy), reader)

    return findings


def names(findings: Findings) -> set[str]:
    return {check.name for check in findings.differing}


def test_a_sound_package_agrees_in_everything(checkpoint: Path, package: Path, reader: Reader) -> None:
    found = compare(package, str(checkpoint), reader)
    assert found.version == hf.__version__
    assert found.model_class == "LlamaForCausalLM"
    assert [check.name for check in found.checks] == [
        "tokens", "text", "text with special tokens", "chat template",
        "logits", "defaults", "special tokens", "generated",
    ]  # fmt: skip
    assert not found.differing, found.summary
    assert all(check.count > 0 for check in found.checks)
    logits = next(check for check in found.checks if check.name == "logits")
    assert logits.count >= 200
    assert logits.error is not None
    assert logits.error < 5e-6


def test_other_numbers_are_told(changed: Callable[..., Findings]) -> None:
    found = changed("config.json", rope_theta=500.0)
    assert names(found) >= {"logits"}
    assert "apart" in found.summary


def test_other_defaults_are_told(changed: Callable[..., Findings]) -> None:
    found = changed("generation_config.json", do_sample=True, top_k=7, eos_token_id=[0, 5])
    assert names(found) >= {"defaults", "special tokens"}
    assert "top_k is 50 here and 7 there" in found.summary


def test_another_chat_template_is_told(checkpoint: Path, package: Path, reader: Reader, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    (copy / "chat_template.jinja").write_text(TEMPLATE.replace("<", "["))
    found = compare(package, str(copy), reader)
    assert names(found) == {"chat template"}


def test_another_tokenizer_is_told(checkpoint: Path, package: Path, reader: Reader, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    tokenizer = byte_tokenizer()
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(copy / "tokenizer.json"))
    found = compare(package, str(copy), reader)
    assert "tokens" in names(found)


def test_a_checkpoint_that_transformers_cannot_read_is_told(changed: Callable[..., Findings]) -> None:
    found = changed("config.json", model_type="unheard-of")
    assert "transformers cannot read it" in found.summary


def test_an_export_that_transformers_contradicts_fails(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "package"
    assert edgellm_export.export(checkpoint, out, precision="fp32", verify_with="transformers").findings is not None
    monkeypatch.setattr("edgellm_export.blocks.rope._inverse_frequencies", _misread)
    with pytest.raises(QualityGateError, match=r"is not what transformers .* makes of the checkpoint: logits"):
        edgellm_export.export(
            checkpoint, tmp_path / "other", precision="fp32", verify_with="transformers", keep_failed=True
        )
    assert not (tmp_path / "other").exists()
    assert (tmp_path / "other.failed" / "edgellm.json").is_file()


def _misread(theta: float, rotary_dim: int) -> Any:
    import numpy as np

    return np.ones(rotary_dim // 2, np.float32)


def test_the_command_says_what_differs(checkpoint: Path, package: Path, tmp_path: Path) -> None:
    same = CliRunner().invoke(cli, ["verify", str(package), "--source", str(checkpoint), "--json"])
    assert same.exit_code == 0, same.output
    assert json.loads(same.stdout)["same"] is True
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    other = CliRunner().invoke(cli, ["verify", str(package), "--source", str(copy)])
    assert other.exit_code == 6
    assert "they differ in: logits" in other.stderr
    assert "logits" in other.stdout


def test_without_transformers_it_says_what_is_needed(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'transformers'\" >&2; exit 1\n")
    bare.chmod(0o755)
    with pytest.raises(MissingDependencyError, match="pip install transformers torch"):
        Reader(str(bare)).check("somewhere")
    with pytest.raises(MissingDependencyError, match="cannot be run"):
        Reader(str(tmp_path / "absent")).check("somewhere")


def test_gguf_files_are_not_transformers_to_judge(tmp_path: Path) -> None:
    (tmp_path / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
    for source in ("model.gguf", "org/name:Q4_K_M", str(tmp_path)):
        with pytest.raises(ExportError, match=r"llama\.cpp"):
            Reader().check(source)


def test_an_older_transformers_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"has transformers 4\.44\.2, expected 4\.57 or newer"):
        Reader(program(tmp_path, "echo 4.44.2")).check("somewhere")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo hello", "wrote 'hello', expected a line of JSON"),
        ("echo 1", "wrote '1', expected a line of JSON"),
        ("exit 3", "ended with 3 while it read somewhere"),
        ("exec sleep 60", r"had not read somewhere after 0\.5 seconds"),
    ],
)
def test_a_process_that_does_not_answer_is_ended(script: str, expected: str, tmp_path: Path) -> None:
    question = Question(checkpoint="somewhere", revision=None, task="text-generation", out=str(tmp_path), length=8)
    with Reader(program(tmp_path, script), limit=0.5) as reader, pytest.raises(ExportError, match=expected):
        reader.ask(question)


def program(path: Path, script: str) -> str:
    made = path / "python"
    made.write_text(f"#!/bin/sh\n{script}\n")
    made.chmod(0o755)
    return str(made)


def test_what_is_not_a_number_differs() -> None:
    ones, nans = np.ones(3, np.float32), np.full(3, np.nan, np.float32)
    assert np.isnan(relative_error([ones, nans], [ones, ones]))
    assert np.isnan(relative_error([nans, ones], [ones, ones]))


def test_a_process_without_its_own_directory_reads(
    package: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with Reader() as reader:
        assert not compare(package, str(checkpoint), reader).differing


def test_a_tokenizer_that_transformers_cannot_open_is_told(
    checkpoint: Path, package: Path, reader: Reader, tmp_path: Path
) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    (copy / "tokenizer.json").write_text("{}")
    found = compare(package, str(copy), reader)
    assert "tokens, 0 texts: transformers opens no tokenizer there" in found.summary


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a tokenizer."""
    path = tmp_path_factory.mktemp("witness") / "encoder"
    sizes = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    hf.BertModel(hf.BertConfig(**sizes, num_attention_heads=2)).save_pretrained(path)
    return path


def test_no_tokenizer_on_both_sides_is_a_note(encoder: Path, reader: Reader, tmp_path: Path) -> None:
    made = edgellm_export.export(encoder, tmp_path / "package", precision="fp32", verify_quality=False).path
    found = compare(made, str(encoder), reader)
    assert not found.differing, found.summary
    assert "transformers opens no tokenizer" in found.notes[0]


def test_an_encoder_is_compared_by_ids_where_only_one_side_has_a_tokenizer(
    encoder: Path, reader: Reader, tmp_path: Path
) -> None:
    copy = shutil.copytree(encoder, tmp_path / "checkpoint")
    hf.PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(), pad_token="<end>").save_pretrained(copy)
    made = edgellm_export.export(copy, tmp_path / "package", precision="fp32", verify_quality=False).path
    found = compare(made, str(encoder), reader)
    assert names(found) == {"tokens"}
    assert {"tokens", "last_hidden_state"} <= {check.name for check in found.checks}
