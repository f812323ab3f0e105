"""The hub, stood in for by a server on the loopback address."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import huggingface_hub.file_download
import numpy as np
import pytest
import torch
from huggingface_hub.utils._http import reset_sessions
from safetensors.numpy import save

from edgellm.errors import CheckpointError, CheckpointNotFoundError
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.sources.opening import open_adapter, open_checkpoint
from gguf_files import split, tiny_llama

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = save({"w": np.arange(4, dtype=np.float32)})
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "tokenizer_config.json": b"{}",
    "generation_config.json": b'{"eos_token_id": 1}',
    "README.md": b"no",
    "pytorch_model.bin": b"no",
    "modeling_custom.py": b"no",
    "onnx/model.onnx": b"no",
    "tokenizer.model": b"",
}


@dataclass
class Hub:
    """`files` of the only repository, org/tiny; `refusal` is (status, error code) for every request."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    refusal: tuple[int, str] | None = None
    downloads: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    ranges: dict[str, str] = field(default_factory=dict)  # by file


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            state.agents.add(self.headers.get("User-Agent", ""))
            status, headers, content = respond(state, self.path, count=body)
            if "Range" in self.headers:
                state.ranges[self.path.rpartition("/")[2]] = self.headers["Range"]
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    point_to(state.url, monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    reset_sessions()  # they remember whether they are offline
    yield state
    reset_sessions()
    server.shutdown()
    server.server_close()
    thread.join()


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(huggingface_hub.file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def respond(hub: Hub, path: str, *, count: bool) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content, as the hub's API answers."""
    if hub.refusal:
        return hub.refusal[0], {"X-Error-Code": hub.refusal[1]} if hub.refusal[1] else {}, b"{}"
    if path.startswith("/api/models/org/tiny"):
        if "/revision/" in path and not path.endswith(("/v1", "/main", COMMIT)):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        info = {"id": "org/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in hub.files]}
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
    name = re.sub(f"^/org/tiny/resolve/({COMMIT}|main|v1)/", "", path)
    if name not in hub.files:
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
    content = hub.files[name]
    if count:
        hub.downloads.append(name)
    return 200, {"ETag": hashlib.sha256(content).hexdigest(), "X-Repo-Commit": COMMIT}, content


def fetch(tmp_path: Path, source: str = "org/tiny", revision: str | None = None) -> Checkpoint:
    return open_checkpoint(source, revision=revision, cache_dir=tmp_path / "cache")


def test_only_what_an_export_reads_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    hub.files["tokenizer.json"] = b"x"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be loaded"):
        fetch(tmp_path)
    expected = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(hub.downloads) == expected


def test_a_model_is_opened_with_its_commit(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"]
    checkpoint = fetch(tmp_path, revision="v1")
    assert checkpoint.tensors["w"].rows(1, 3).tolist() == [1, 2]
    assert (checkpoint.source["name"], checkpoint.source["revision"]) == ("org/tiny", COMMIT)
    assert str(tmp_path) not in json.dumps(checkpoint.source)


def test_shards_come_from_the_index(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"], hub.files["model.safetensors"]
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"w": "part-1.safetensors"}}).encode()
    with pytest.raises(CheckpointNotFoundError, match=r"lacks part-1\.safetensors, which its"):
        fetch(tmp_path)
    hub.files |= {"part-1.safetensors": WEIGHTS, "unlisted.safetensors": b"no"}
    assert set(fetch(tmp_path).tensors) == {"w"}
    assert "unlisted.safetensors" not in hub.downloads


def test_headers_without_weights(hub: Hub, tmp_path: Path) -> None:
    """The beginning of each file of weights is asked for, nothing more, and nothing of them is kept."""
    del hub.files["tokenizer.model"], hub.files["model.safetensors"]
    index = {"weight_map": {"w": "part-1.safetensors", "v": "part-2.safetensors"}}
    other = save({"v": np.zeros((100, 2000), np.float16)})
    hub.files |= {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "part-1.safetensors": WEIGHTS,
        "part-2.safetensors": other,
    }
    checkpoint = open_checkpoint("org/tiny", cache_dir=tmp_path / "cache", weights=False)
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == {"w": (4,), "v": (100, 2000)}
    assert (checkpoint.source["name"], checkpoint.source["revision"]) == ("org/tiny", COMMIT)
    assert checkpoint.source["dtypes"] == ["F16", "F32"]
    assert hub.ranges == {"part-1.safetensors": "bytes=0-100000", "part-2.safetensors": "bytes=0-100000"}
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_weights_that_are_there_are_used(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"]
    fetch(tmp_path)
    checkpoint = open_checkpoint("org/tiny", cache_dir=tmp_path / "cache", weights=False)
    assert checkpoint.tensors["w"].rows(1, 3).tolist() == [1, 2]
    assert hub.ranges == {}


def test_a_header_that_is_none(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"]
    for content in (b"\x02\0\0\0\0\0\0\0[]", b"\x05\0\0\0\0\0\0\0{{{{{", b"no"):
        hub.files["model.safetensors"] = content
        with pytest.raises(CheckpointError):
            open_checkpoint("org/tiny", cache_dir=tmp_path / "cache", weights=False)
    far = {"w": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}
    text = json.dumps(far).encode()
    hub.files["model.safetensors"] = len(text).to_bytes(8, "little") + text
    with pytest.raises(CheckpointError):
        open_checkpoint("org/tiny", cache_dir=tmp_path / "cache", weights=False)


def test_index_cannot_ask_for_other_files(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"w": "../../x.safetensors"}}).encode()
    with pytest.raises(CheckpointError, match="in its directory"):
        fetch(tmp_path)


def test_without_connection_the_cache_serves(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del hub.files["tokenizer.model"]
    fetch(tmp_path)
    point_to("http://127.0.0.1:9", monkeypatch)
    checkpoint = fetch(tmp_path)
    assert checkpoint.source["revision"] == COMMIT
    with pytest.raises(CheckpointNotFoundError, match="not in the hub cache and the hub cannot be reached"):
        fetch(tmp_path, "org/other")


def test_offline_mode_uses_the_cache_only(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    reset_sessions()
    with pytest.raises(CheckpointNotFoundError, match=r"cannot be reached \(OfflineModeIsEnabled\)"):
        fetch(tmp_path)
    assert not hub.agents


REFUSALS = {
    "unknown": ((401, "RepoNotFound"), CheckpointNotFoundError, "the hub has no model org/tiny; check the spelling"),
    "private": ((404, "RepoNotFound"), CheckpointNotFoundError, "if it is private"),
    "gated": ((403, "GatedRepo"), CheckpointError, "accept its terms on its page"),
    "broken": ((500, ""), CheckpointError, "the hub refused org/tiny"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_what_to_do(hub: Hub, tmp_path: Path, case: str) -> None:
    hub.refusal, error, message = REFUSALS[case]
    with pytest.raises(error, match=message):
        fetch(tmp_path)


def test_unknown_revisions(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="has no revision 'v9'"):
        fetch(tmp_path, revision="v9")


def test_a_repository_without_a_config_is_no_model(hub: Hub, tmp_path: Path) -> None:
    del hub.files["config.json"]
    with pytest.raises(CheckpointError, match=r"has no config\.json; it is not a Transformers model"):
        fetch(tmp_path)
    assert hub.downloads == []


def torch_file(**tensors: torch.Tensor) -> bytes:
    made = io.BytesIO()
    torch.save(tensors, made)
    return made.getvalue()


def test_pytorch_files_are_downloaded_where_there_is_nothing_better(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"], hub.files["model.safetensors"]
    hub.files |= {"pytorch_model.bin": torch_file(w=torch.arange(4.0)), "tf_model.h5": b"no", "rust_model.ot": b"no"}
    checkpoint = fetch(tmp_path)
    assert checkpoint.tensors["w"].rows(1, 3).tolist() == [1, 2]
    assert checkpoint.source["format"] == "pytorch"
    assert not {"tf_model.h5", "rust_model.ot"} & set(hub.downloads)


def test_pytorch_files_in_parts(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"], hub.files["model.safetensors"], hub.files["pytorch_model.bin"]
    index = {"weight_map": {"w": "parts/1.bin", "v": "parts/2.bin"}}
    hub.files |= {
        "pytorch_model.bin.index.json": json.dumps(index).encode(),
        "parts/1.bin": torch_file(w=torch.ones(2)),
        "parts/2.bin": torch_file(v=torch.ones(3)),
    }
    assert {name: tensor.shape for name, tensor in fetch(tmp_path).tensors.items()} == {"w": (2,), "v": (3,)}


def test_safetensors_come_before_an_index_and_pytorch_files(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"]
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"w": "old.safetensors"}}).encode()
    assert fetch(tmp_path).tensors["w"].shape == (4,)
    assert not {"model.safetensors.index.json", "pytorch_model.bin"} & set(hub.downloads)


def test_the_file_that_the_config_names(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"]
    hub.files["config.json"] = b'{"model_type": "llama", "transformers_weights": "other.safetensors"}'
    with pytest.raises(CheckpointNotFoundError, match=r"has no other\.safetensors, which its config\.json names"):
        fetch(tmp_path)
    hub.files["other.safetensors"] = save({"w": np.zeros(7, np.float32)})
    assert fetch(tmp_path).tensors["w"].shape == (7,)
    assert "model.safetensors" not in hub.downloads


def test_pytorch_files_are_not_planned_without_their_content(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"], hub.files["model.safetensors"]
    hub.files["pytorch_model.bin"] = torch_file(w=torch.arange(4.0))
    with pytest.raises(CheckpointError, match=r"in pytorch_model\.bin.*download it first \(`hf download org/tiny`\)"):
        open_checkpoint("org/tiny", cache_dir=tmp_path / "cache", weights=False)
    assert "pytorch_model.bin" not in hub.downloads
    fetch(tmp_path)
    assert open_checkpoint("org/tiny", cache_dir=tmp_path / "cache", weights=False).tensors["w"].shape == (4,)


def test_a_repository_with_other_weights_says_what_it_has(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"], hub.files["pytorch_model.bin"]
    hub.files["model.fp16.safetensors"] = WEIGHTS
    with pytest.raises(
        CheckpointNotFoundError, match=r"org/tiny has none of .*only model\.fp16\.safetensors: a variant"
    ):
        fetch(tmp_path)
    assert "model.fp16.safetensors" not in hub.downloads


def gguf_files(path: Path) -> dict[str, bytes]:
    """Of a repository with two quantizations, one in parts, and what lies beside them."""
    whole = tiny_llama(path / "a.gguf").read_bytes()
    parts = [part.read_bytes() for part in split(path, "b")]
    names = [f"Q8_0/tiny-Q8_0-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    return {"config.json": b"{}", "tiny-Q4_0.gguf": whole, "mmproj.gguf": b"no", **dict(zip(names, parts, strict=True))}


def test_repositories_of_gguf_files_ask_which(hub: Hub, tmp_path: Path) -> None:
    hub.files = gguf_files(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match=r"org/tiny holds several GGUF models: Q8_0, Q4_0; say .*:Q8_0"):
        fetch(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match=r"no GGUF models called 'Q5_0'"):
        fetch(tmp_path, "org/tiny:Q5_0")
    assert hub.downloads == []


def test_one_of_several_gguf_files_is_downloaded_by_its_tag(hub: Hub, tmp_path: Path) -> None:
    hub.files = gguf_files(tmp_path)
    checkpoint = fetch(tmp_path, "org/tiny:q4_0")
    assert hub.downloads == ["tiny-Q4_0.gguf"]
    assert (checkpoint.source["kind"], checkpoint.source["name"]) == ("gguf", "org/tiny")
    assert checkpoint.source["revision"] == COMMIT
    assert set(checkpoint.source["sha256"]) == {"tiny-Q4_0.gguf"}
    assert len(checkpoint.tensors) == 11


def test_parts_in_a_folder_are_downloaded_all(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = gguf_files(tmp_path)
    assert len(fetch(tmp_path, "org/tiny:Q8_0", "v1").tensors) == 11
    assert sorted(hub.downloads) == [name for name in sorted(hub.files) if name.startswith("Q8_0/")]
    point_to("http://127.0.0.1:9", monkeypatch)
    assert len(fetch(tmp_path, "org/tiny:Q8_0", "v1").tensors) == 11
    with pytest.raises(CheckpointNotFoundError, match="no GGUF models called 'Q4_0'"):
        fetch(tmp_path, "org/tiny:Q4_0", "v1")


def test_a_gguf_file_beside_other_weights_is_only_read_when_asked_for(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"]
    hub.files["tiny-Q4_0.gguf"] = tiny_llama(tmp_path / "a.gguf").read_bytes()
    assert fetch(tmp_path).source["format"] == "safetensors"
    assert "tiny-Q4_0.gguf" not in hub.downloads
    assert fetch(tmp_path, "org/tiny:Q4_0").source["format"] == "gguf"
    assert fetch(tmp_path).source["format"] == "safetensors"


def test_the_only_gguf_file_needs_no_tag(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"tiny-Q4_0.gguf": tiny_llama(tmp_path / "a.gguf").read_bytes(), "README.md": b""}
    with pytest.raises(CheckpointError, match=r"download it first \(`hf download org/tiny tiny-Q4_0\.gguf`\)"):
        open_checkpoint("org/tiny", cache_dir=tmp_path / "cache", weights=False)
    assert fetch(tmp_path).source["format"] == "gguf"
    assert open_checkpoint("org/tiny", cache_dir=tmp_path / "cache", weights=False).source["format"] == "gguf"


def test_the_only_gguf_file_may_lie_in_folders(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"a/b/tiny-Q4_0.gguf": tiny_llama(tmp_path / "a.gguf").read_bytes(), "README.md": b""}
    assert fetch(tmp_path).source["format"] == "gguf"
    assert fetch(tmp_path, "org/tiny:Q4_0").source["format"] == "gguf"


def test_a_repository_of_a_reader_of_images_alone_is_no_model(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"mmproj-F16.gguf": b"no"}
    with pytest.raises(CheckpointNotFoundError, match=r"org/tiny has no config\.json"):
        fetch(tmp_path)


def test_repositories_without_gguf_files_have_no_tags(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"org/tiny has no GGUF file of a model; leave 'Q4_0' out"):
        fetch(tmp_path, "org/tiny:Q4_0")


def test_nothing_is_told_about_the_machine(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.model"]
    fetch(tmp_path)
    assert hub.agents
    assert not [agent for agent in hub.agents if "torch/" in agent or "session" in agent]


ADAPTER = {
    "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": "org/base"}',
    "adapter_model.safetensors": save({"a": np.arange(4, dtype=np.float32)}),
    "tokenizer_config.json": b"{}",
    "README.md": b"no",
    "checkpoint-10/adapter_model.safetensors": b"no",
    "training_args.bin": b"no",
}


def test_an_adapter_downloads_its_own_files_only(hub: Hub, tmp_path: Path) -> None:
    hub.files = dict(ADAPTER)
    opened = open_adapter("org/tiny", cache_dir=tmp_path / "cache")
    assert opened.tensors["a"].rows(2, 4).tolist() == [2, 3]
    assert set(hub.downloads) == {"adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json"}
    assert opened.source["name"] == "org/tiny"
    assert opened.source["revision"] == COMMIT


SENTENCES = {
    "modules.json": json.dumps(
        [
            {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
    ).encode(),
    "1_Pooling/config.json": b"{}",
    "config_sentence_transformers.json": b"{}",
}


def test_the_files_of_a_sentence_encoder_beside_an_adapter_are_downloaded(hub: Hub, tmp_path: Path) -> None:
    hub.files = ADAPTER | SENTENCES
    assert SENTENCES.items() <= open_adapter("org/tiny", cache_dir=tmp_path / "cache").files.items()


def test_what_a_sentence_encoder_has_for_tokens_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    """As BGE-M3 has it, and of no other checkpoint."""
    del hub.files["tokenizer.model"]
    file = io.BytesIO()
    torch.save({"weight": torch.ones(1, 8), "bias": torch.zeros(1)}, file)
    hub.files |= {"sparse_linear.pt": file.getvalue(), "other.pt": b"no"}
    assert fetch(tmp_path / "alone").steps == {}
    assert "sparse_linear.pt" not in hub.downloads
    hub.files |= SENTENCES
    assert {*fetch(tmp_path / "both").steps} == {"sparse_linear.weight", "sparse_linear.bias"}
    assert "other.pt" not in hub.downloads


def test_a_plan_leaves_an_adapters_tensors_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.files = dict(ADAPTER)
    opened = open_adapter("org/tiny", cache_dir=tmp_path / "cache", weights=False)
    assert opened.tensors["a"].shape == (4,)
    assert hub.ranges.keys() == {"adapter_model.safetensors"}


def test_an_adapter_in_the_cache_needs_no_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = dict(ADAPTER)
    open_adapter("org/tiny", cache_dir=tmp_path / "cache")
    point_to("http://127.0.0.1:9", monkeypatch)
    assert open_adapter("org/tiny", cache_dir=tmp_path / "cache").source["revision"] == COMMIT


def test_an_adapter_in_the_cache_is_not_a_model(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = dict(ADAPTER)
    open_adapter("org/tiny", cache_dir=tmp_path / "cache")
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(CheckpointError, match="org/tiny is a LoRA adapter of org/base"):
        fetch(tmp_path)


def test_a_repository_without_an_adapter(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"org/tiny has no adapter_config.json"):
        open_adapter("org/tiny", cache_dir=tmp_path / "cache")


def test_a_repository_of_an_adapter_is_not_a_model(hub: Hub, tmp_path: Path) -> None:
    hub.files = dict(ADAPTER)
    with pytest.raises(CheckpointError, match=r"org/tiny is a LoRA adapter of org/base.*--adapter org/tiny"):
        fetch(tmp_path)
