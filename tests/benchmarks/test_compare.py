"""The arithmetic, the table and the worker protocol of benchmarks/compare.py, without any peer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import edgellm
from compare import parse, planned
from measuring import Plan, Samples, measure_rounds, ratio
from models import MODELS
from quality import divergence
from rendering import Run, heading, json_line, table, update_readme
from systems import OWN, SYSTEMS
from tiny_package import TinyConfig, write_package
from workers import Failed, Start, Worker

PLAN = Plan(lengths=(4, 2048), new_tokens=3, rounds=3, long_rounds=1, starts=0, batch=2, beams=0)


class Fake(Worker):
    """A worker whose every token takes `seconds`, and which fails beyond `limit` tokens."""

    def __init__(self, name: str, seconds: float, limit: int, log: list[str]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "behaviour", (seconds, limit, log))

    def time(self, prompt_length: int, new_tokens: int) -> dict[str, float]:
        seconds, limit, log = self.behaviour  # type: ignore[attr-defined]
        log.append(f"{self.name} {prompt_length}")
        if prompt_length > limit:
            raise Failed("too long")
        return {"first_token_s": prompt_length * seconds / 10, "decode_s": (new_tokens - 1) * seconds}

    def time_several(self, prompt_length: int, new_tokens: int, *, rows: int, beams: int) -> dict[str, float]:
        return {"decode_s": (new_tokens - 1) * self.behaviour[0]}  # type: ignore[attr-defined]


def fake_run(log: list[str] | None = None) -> Run:
    log = [] if log is None else log
    samples = Samples()
    measure_rounds([Fake(OWN, 0.5, 9999, log), Fake("llama.cpp", 1.0, 100, log)], PLAN, samples)
    samples.add(OWN, "KL divergence", 0.00312)
    return Run("smollm2", "SmolLM2-135M", "int8", 2, "a processor", (9000,), PLAN, samples)


def test_rounds_interleave_and_long_prompts_have_fewer() -> None:
    log: list[str] = []
    samples = fake_run(log).samples
    assert [len(samples.values[name]["prefill 4"]) for name in (OWN, "llama.cpp")] == [3, 3]  # the warm-up is dropped
    short = [entry.split()[0] for entry in log if entry.endswith(" 4")]
    assert all(set(pair) == {OWN, "llama.cpp"} for pair in zip(short[::2], short[1::2], strict=True))
    assert len(set(short[::2])) == 2  # neither is always the first
    assert log.count(f"{OWN} 2048") == 1


def test_the_table_has_ratios_and_says_what_is_missing() -> None:
    text = table(fake_run())
    assert "|  | edgellm int8 | llama.cpp Q8_0 |" in text
    assert "| decode after 4 | 2.0 | 1.0 (2.00x, 2.00-2.00) |" in text
    assert "| prefill 2048 | 20.0 | - |" in text
    assert "| KL divergence | 0.0031 | - |" in text
    assert "| batch 2 | 4 | 2.00x (2.00-2.00) |" in text
    assert "- llama.cpp, 2048 tokens: too long" in text
    assert "9000 tokens are skipped" in text


def test_the_json_line_has_every_sample() -> None:
    (line,) = json_line(fake_run()).splitlines()
    systems = json.loads(line)["systems"]
    assert systems["llama.cpp"]["samples"]["decode after 4"] == [1.0, 1.0, 1.0]
    assert systems["llama.cpp"]["edgellm_over_it"]["decode after 4"] == [2.0, 2.0, 2.0]
    assert json.loads(line)["lengths"] == [4, 2048]


def test_ratios_are_of_rounds_not_of_medians() -> None:
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == (2.0, 1.0, 3.0)


def test_divergence_is_that_of_the_distributions() -> None:
    """Against the definition, with logits shifted by a constant per row and a padded vocabulary."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5), 130), rng.dirichlet(np.ones(5), 130)
    padded = np.concatenate([np.log(q) + 7, np.full((130, 3), 50.0)], axis=1)
    kl, agreement = divergence(np.log(p) - 3, padded)
    assert kl == pytest.approx(float((p * np.log(p / q)).sum(axis=1).mean()))
    assert agreement == float((p.argmax(axis=1) == q.argmax(axis=1)).mean())


def test_the_readme_table_replaces_the_last_one(tmp_path: Path) -> None:
    readme, run = tmp_path / "README.md", fake_run()
    readme.write_text("a\n<!-- begin compare smollm2 int8 -->\nold\n<!-- end compare smollm2 int8 -->\nb\n")
    for _ in range(2):
        update_readme(run, readme)
    begin, end = "<!-- begin compare smollm2 int8 -->", "<!-- end compare smollm2 int8 -->"
    assert readme.read_text() == f"a\n{begin}\n{heading(run)}\n\n{table(run)}\n{end}\nb\n"
    readme.write_text("no place")
    with pytest.raises(SystemExit, match="no place for this table"):
        update_readme(run, readme)


def test_the_readme_has_a_place_for_every_table() -> None:
    text = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text()
    for model in MODELS:
        for precision in ("int8", "int4"):
            assert text.count(f"<!-- begin compare {model} {precision} -->") == 1
            assert text.count(f"<!-- end compare {model} {precision} -->") == 1


def test_lengths_beyond_the_context_are_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = parse(["--lengths", "8192,128,8000"])
    plan, skipped = planned(arguments, MODELS["smollm2"])
    assert (plan.lengths, skipped) == ((128, 8000), (8192,))
    assert "8192 tokens are skipped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--systems", "llamacpp"], "no int8 arm of llamacpp"),
        (["--systems", "ctranslate2", "--precision", "int4"], "no int4 arm of ctranslate2"),
        (["--lengths", "0"], "0 is not a positive number"),
    ],
)
def test_wrong_options_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words)
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """edgellm's own arm, in its process. The prompts' token ids go up to 40000."""
    package = write_package(tmp_path_factory.mktemp("package") / "tiny", TinyConfig(vocab_size=40064))
    worker = Start(OWN, SYSTEMS[OWN], package, threads=1, context=64).worker()
    yield worker
    worker.close()


def test_the_worker_times_one_and_several(worker: Worker) -> None:
    assert 0 < worker.loaded["load_s"] < worker.loaded["start_s"]
    one = worker.time(20, 5)
    assert one["first_token_s"] > 0
    assert one["decode_s"] > 0
    assert one["peak_rss_mb"] > worker.loaded["bare_mb"] > 1
    assert worker.time_several(20, 5, rows=2, beams=2)["decode_s"] > 0


def test_the_worker_writes_the_logits_of_all_positions(worker: Worker, tmp_path: Path) -> None:
    ids = list(range(300, 330))
    worker.write_logits(ids, tmp_path / "logits.npy")
    logits = np.load(tmp_path / "logits.npy")
    model = edgellm.load(json.loads(worker.process.args[2])["model"], threads=1)  # type: ignore[index]
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, model.logits(ids), rtol=1e-5, atol=1e-5)


def test_a_worker_survives_what_it_cannot_do(worker: Worker) -> None:
    with pytest.raises(Failed, match="context"):
        worker.time(5000, 5)
    assert worker.time(20, 5)["decode_s"] > 0


def test_a_system_that_ends_says_so(tmp_path: Path) -> None:
    start = Start(OWN, SYSTEMS[OWN], tmp_path / "nothing", threads=1, context=64)
    with pytest.raises(Failed, match="it ended with status 1"):
        start.worker()


def test_a_worker_that_died_fails_each_request(tmp_path: Path) -> None:
    package = write_package(tmp_path / "tiny", TinyConfig(vocab_size=40064))
    with closing(Start(OWN, SYSTEMS[OWN], package, threads=1, context=64).worker()) as worker:
        worker.process.kill()
        for _ in range(2):
            with pytest.raises(Failed, match="it ended with status -9"):
                worker.time(4, 2)
