"""On a cluster of several nodes, one of which dies in the middle: the answers are those of one process, each once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

import edgellm
import edgellm.ray
import edgellm_export
import encoder_families
from comparison import relative
from edgellm.bulk import run_batch
from edgellm.bulk.forms import Columns
from edgellm.bulk.generating import Settings
from edgellm.bulk.journal import Journal, journal_of
from edgellm.bulk.lines import Outcome
from edgellm.bulk.plan import Plan
from edgellm.cli import cli
from edgellm.errors import BatchError, OptionError, PackageCorruptError
from edgellm.loading import read_package
from edgellm.package.files import sha256_of
from edgellm.ray import parcel as parcels
from edgellm.ray.dataset import Answering
from edgellm.ray.fleet import Fleet, Seat
from edgellm.ray.library import connected
from edgellm.ray.orders import order_of
from edgellm.server.settings import ServerSettings
from encoders.test_sentences import sentence_files

Package = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

STORE = 78 << 20  # bytes, the least that Ray takes
FREE: dict[str, Any] = {"max_new_tokens": 20, "min_new_tokens": 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and a node, each with one processor. Folders of all are below one with a short name: those of sockets have
    little room."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    place = tempfile.mkdtemp(prefix="edgellm-ray-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", place)
        patch.setattr(tempfile, "tempdir", None)  # it is read anew
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # it would write a token into the user's home
        head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
        found = Cluster(initialize_head=True, head_node_args=head)
        try:
            found.add_node(num_cpus=1, object_store_memory=STORE)
            yield found
        finally:
            ray.shutdown()
            found.shutdown()
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def inside(cluster: Any) -> Iterator[Any]:
    """Connected to it."""
    with connected(cluster.address) as ray:
        yield ray


@pytest.fixture
def llama(package: Package) -> Path:
    return package("llama")


def kill_one(cluster: Any) -> None:
    """One node dies with all its processes, and one that is new comes."""
    node = next(node for node in cluster.worker_nodes if node is not cluster.head_node)
    (raylet,) = node.all_processes["raylet"]
    workers = Path(f"/proc/{raylet.process.pid}/task/{raylet.process.pid}/children").read_text().split()
    raylet.process.kill()
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=STORE, wait=False)


def write_lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def prompts(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{number} and more", "id": number} for number in range(count)]


def entries(journal: Path) -> list[int]:
    return [json.loads(line[9:])["line"] for line in journal.read_bytes().split(b"\n")[1:-1]]


def test_a_node_dies_and_no_line_is_lost_or_there_twice(
    cluster: Any, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[Any] = prompts(400)
    lines[200] = {"no prompt": 1}
    source, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    lost: list[int] = []
    add, bury = Journal.add, Fleet._bury

    def adding(journal: Journal, outcome: Outcome) -> None:
        add(journal, outcome)
        if journal.totals.answered == 100:
            kill_one(cluster)

    def burying(fleet: Fleet, seat: Seat, error: Exception) -> Iterator[Outcome]:
        lost.append(seat.carried)
        return bury(fleet, seat, error)

    monkeypatch.setattr(Journal, "add", adding)
    monkeypatch.setattr(Fleet, "_bury", burying)
    summary = edgellm.ray.run_batch(llama, source, output, address=cluster.address, **FREE)
    assert sum(lost) > 0  # it died with lines
    assert (summary.answered, summary.failed, summary.reused) == (399, 1, 0)
    assert sorted(entries(journal_of(output))) == list(range(400))
    monkeypatch.undo()
    run_batch(llama, source, tmp_path / "alone.jsonl", **FREE)
    assert output.read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


def test_a_killed_command_goes_on_with_a_cluster_or_without(cluster: Any, llama: Path, tmp_path: Path) -> None:
    source, output = write_lines(tmp_path / "in.jsonl", prompts(400)), tmp_path / "out.jsonl"
    tokens = ["--max-new-tokens", "20", "--min-new-tokens", "20"]
    command = [sys.executable, "-m", "edgellm", "batch", str(llama), str(source), str(output), *tokens]
    command += ["--ray", cluster.address, "--ray-shared", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None and not journal_of(output).exists():
            time.sleep(0.01)
        while child.poll() is None and len(entries(journal_of(output))) < 50:
            time.sleep(0.01)
        child.kill()
        out, errors = child.communicate(timeout=30)
    assert (child.returncode, out) == (-signal.SIGKILL, ""), errors
    done = entries(journal_of(output))
    assert edgellm.ray.run_batch(llama, source, output, address=cluster.address, **FREE).reused == len(done) < 400
    run_batch(llama, source, tmp_path / "alone.jsonl", **FREE)
    assert output.read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


def test_each_line_has_its_own_error_or_answer(inside: Any, llama: Path, tmp_path: Path) -> None:
    """OpenAI's lines, through the connection that is there."""
    bodies: list[Any] = [
        {"prompt": "a", "max_tokens": 3, "temperature": 0},
        {"prompt": ["a", [70, 71]], "max_tokens": 300, "temperature": 0},
        {"prompt": "a" * 500},
        {"prompt": "a", "stop": 5},
    ]
    lines = [{"custom_id": str(n), "url": "/v1/completions", "body": body} for n, body in enumerate(bodies * 3)]
    source = write_lines(tmp_path / "in.jsonl", lines)
    summary = edgellm.ray.run_batch(llama, source, tmp_path / "out.jsonl")
    run_batch(llama, source, tmp_path / "alone.jsonl")
    found, alone = (read_lines(tmp_path / name) for name in ("out.jsonl", "alone.jsonl"))
    for line in (*found, *alone):
        line["response"]["body"].pop("created", None)
    assert found == alone
    assert {line["response"]["status_code"] for line in found} == {200, 400}
    assert inside.is_initialized()
    assert edgellm.ray.run_batch(llama, source, tmp_path / "out.jsonl").reused == summary.lines


def test_a_package_is_on_a_node_once_and_checked(
    inside: Any, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcels, "PART", 10_000)  # so that files have many
    path, manifest = read_package(llama)
    parcel = parcels.packed(path, manifest, "some")
    assert max(len(parts) for parts in parcel.files.values()) > 5
    there = parcels.unpacked(parcel)
    assert there.stat().st_mode & 0o077 == 0
    assert {name: sha256_of(there / name) for name in manifest.files} == {
        name: entry.sha256 for name, entry in manifest.files.items()
    }
    before = (there / "edgellm.json").stat()
    assert (parcels.unpacked(parcel) / "edgellm.json").stat().st_mtime_ns == before.st_mtime_ns
    (there / "model.onnx").unlink()  # as what cleans up does
    assert (parcels.unpacked(parcel) / "model.onnx").is_file()
    mixed = replace(parcel, identity="mixed", files={**parcel.files, "model.onnx": parcel.files["config.json"]})
    with pytest.raises(PackageCorruptError, match=r"model\.onnx has"):
        parcels.unpacked(mixed)
    assert [path.name for path in there.parent.iterdir() if "mixed" in path.name] == ["mixed.lock"]
    there.parent.chmod(0o777)
    with pytest.raises(BatchError, match="is not a folder that only this user can write to"):
        parcels.unpacked(parcel)
    there.parent.chmod(0o700)


def test_rows_of_a_dataset_when_a_node_dies(cluster: Any, inside: Any, llama: Path) -> None:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.from_items(prompts(300), override_num_blocks=10)
    answered = edgellm.ray.map(dataset, llama, workers=(1, 2), max_rows=8, **FREE)
    rows: list[dict[str, Any]] = []
    for row in answered.iter_rows():
        rows.append(row)
        if len(rows) == 30:
            kill_one(cluster)
    rows.sort(key=lambda row: row["id"])
    assert [row["id"] for row in rows] == list(range(300))
    model = edgellm.load(llama)
    assert [row["answer"] for row in rows[::10]] == [model.generate(row["prompt"], **FREE).text for row in rows[::10]]
    assert {row["error"] for row in rows} == {None}


def test_openai_s_addresses_in_ray_serve(inside: Any, llama: Path) -> None:
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(edgellm.ray.serve_app({"tiny": llama}, ServerSettings(max_rows=4)))
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            assert [card["id"] for card in http.get("/v1/models").json()["data"]] == ["tiny"]
            body = {"prompt": "hello", "max_tokens": 20, "temperature": 0}
            alone = edgellm.load(llama).generate("hello", max_new_tokens=20)
            with ThreadPoolExecutor() as threads:
                answers = list(threads.map(lambda _: http.post("/v1/completions", json=body).json(), range(8)))
            assert [answer["choices"][0]["text"] for answer in answers] == [alone.text] * 8
            with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
                pieces = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
            assert "".join(piece["choices"][0]["text"] for piece in pieces) == alone.text
            refused = http.post("/v1/completions", json={**body, "model": "other"})
            assert refused.status_code == 404
            assert http.get("/health", headers={"host": "evil.example"}).status_code >= 400
    finally:
        serve.shutdown()


def test_what_a_cluster_cannot_do(cluster: Any, inside: Any, llama: Path, tmp_path: Path) -> None:
    source, output = write_lines(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    run = edgellm.ray.run_batch
    with pytest.raises(OptionError, match="threads is 5, and the largest node of the cluster has 1 CPUs"):
        run(llama, source, output, threads=5)
    with pytest.raises(OptionError, match="is connected to a Ray cluster already, and 'auto' may be another"):
        run(llama, source, output, address="auto")
    with pytest.raises(OptionError, match="workers is 0, expected a whole number from 1"):
        run(llama, source, output, workers=0)
    with pytest.raises(OptionError, match="would run on CUDA, and workers on Ray have CPUs alone"):
        run(llama, source, output, device="cuda")
    with pytest.raises(OptionError, match="num_beams is 0"):  # an actor says so
        run(llama, source, output, num_beams=0)
    assert not output.exists()
    plan = Plan(llama, Columns("text"), Settings({}, 1, None, 0), {})
    order = order_of(plan, 1, shared=True)
    with pytest.raises(BatchError, match=r"has edgellm .*, and 9.9 is asked for; install the same version"):
        replace(order, version="9.9").settled()
    with pytest.raises(BatchError, match="is another package than here; share one, or have it sent"):
        replace(order, identity="another").settled()
    data = inside.data.from_items([{"question": "x", "answer": "y"}])
    with pytest.raises(OptionError, match="the dataset has a column 'answer' already"):
        edgellm.ray.map(data, llama).take_all()


def test_ray_tells_its_makers_nothing_and_leaves_signals_alone(cluster: Any) -> None:
    from ray._common.usage import usage_lib

    before = signal.getsignal(signal.SIGTERM)
    with connected(cluster.address):
        assert not usage_lib.usage_stats_enabled()
        assert signal.getsignal(signal.SIGTERM) is before


def test_addresses_that_lead_nowhere(llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    source, output = write_lines(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    with pytest.raises(OptionError, match="through which answers do not come one by one"):
        edgellm.ray.run_batch(llama, source, output, address="ray://127.0.0.1:1")
    for address in ("127.0.0.1:1", "nowhere"):
        with pytest.raises(BatchError, match=f"no Ray cluster can be used at {address}"):
            edgellm.ray.run_batch(llama, source, output, address=address)
    assert not journal_of(output).exists()


def test_without_ray(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["batch", str(llama), str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    found = CliRunner().invoke(cli, [*arguments, "--ray", "local"])
    assert (found.exit_code, "pip install 'edgellm[cpu,ray]'" in found.stderr) == (8, True)
    found = CliRunner().invoke(cli, [*arguments, "--ray-workers", "2"])
    assert (found.exit_code, "--ray-workers is of workers on Ray; give --ray ADDRESS" in found.stderr) == (2, True)


def test_rows_get_vectors(shared: Callable[[str, Callable[[Path], Any]], Path]) -> None:
    """What an actor of a dataset does, without one; two batches of rows at the same time."""
    arrow = pytest.importorskip("pyarrow")

    def export(path: Path) -> None:
        checkpoint = path.parent / "batch-feature-extraction-checkpoint"
        encoder_families.save_checkpoint(encoder_families.make_model("bert", "feature-extraction"), checkpoint)
        sentence_files(checkpoint, pooling={"pooling_mode_mean_tokens": True}, normalize=True)
        edgellm_export.export(checkpoint, path, precision="fp32", verify_quality=False, calibrate=False)

    package = shared("packages/batch-feature-extraction", export)  # that of test_batch.py
    form = Columns("embedding", column="it", prefix="its_")
    plan = Plan(package, form, Settings({}, 8, None, 0), {"prompt_name": None, "truncation": False})
    answering = Answering(order_of(plan, 1, shared=True))
    texts = [f"text {number}" for number in range(20)]
    tables = [arrow.table({"it": texts, "n": range(20)}), arrow.table({"it": [*texts[::-1], "y" * 50]})]
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(answering, tables)
    expected = edgellm.load(package).embed(texts)
    assert first.column_names == ["it", "n", "its_embedding", "its_error"]
    assert relative(np.array(first["its_embedding"].to_pylist()), expected) < 1e-6
    assert relative(np.array(second["its_embedding"].to_pylist()[:20]), expected[::-1]) < 1e-6
    assert second["its_embedding"][20].as_py() is None
    assert "tokens, this model takes at most 20" in second["its_error"][20].as_py()
