"""The table and the files of benchmarks/groups.py, without any peer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgellm_export.sources.opening import open_checkpoint
from environments import ENVIRONMENTS
from gguf_writing import write_random_olmoe
from groups import BEGIN, END, GROUPS, OWN, SIZES, Request, main, table, update_readme
from rendering import README
from workers import PEERS

OLMOE = {
    "block_count": 1, "context_length": 64, "embedding_length": 64, "feed_forward_length": 96,
    "attention.head_count": 4, "attention.head_count_kv": 4, "expert_count": 3, "expert_used_count": 2,
}  # fmt: skip


def test_the_ratio_is_of_times_in_the_same_round() -> None:
    times = {OWN: [10.0, 20.0, 30.0], "peer": [30.0, 20.0, 120.0]}
    row = table({"mixture": {"a new token": times}}).splitlines()[-1]
    assert row == "| OLMoE, 4 layers | a new token | 20.0 | peer | 30.0 | 3.00x (1.00-4.00) |"


class FakeWorker:
    def __init__(self) -> None:
        self.seconds = [0.4, 0.1, 0.2]

    def time(self, prompt_length: int, new_tokens: int) -> dict[str, float]:
        assert (prompt_length, new_tokens) == (128, 65)
        return {"first_token_s": 9.0, "decode_s": self.seconds.pop()}


def test_a_request_takes_the_median_of_its_repeats_and_divides() -> None:
    request = Request("a new token", 128, 65, rows=0, divided=64, repeats=3)
    assert request.ms(FakeWorker()) == pytest.approx(1000 * 0.2 / 64)  # type: ignore[arg-type]


def test_each_group_has_sizes_and_its_workers_are_there() -> None:
    for group in GROUPS.values():
        assert all(group.model in sizes for sizes in SIZES.values())
        assert OWN in group.systems
        for peer in group.systems.values():
            assert peer.environment == "edgellm" or peer.environment in ENVIRONMENTS
            assert (PEERS / peer.worker).is_file()


def test_the_mixture_is_a_file_that_is_read(tmp_path: Path) -> None:
    write_random_olmoe(tmp_path / "w.gguf", OLMOE)
    checkpoint = open_checkpoint(str(tmp_path / "w.gguf"))
    assert {key: checkpoint.config[key] for key in ("model_type", "num_experts", "num_experts_per_tok")} == {
        "model_type": "olmoe", "num_experts": 3, "num_experts_per_tok": 2,
    }  # fmt: skip
    assert not [name for name in checkpoint.tensors if name.startswith("blk.")]
    matrix = checkpoint.tensors["model.layers.0.mlp.experts.2.up_proj.weight"]
    assert matrix.shape == (96, 64)
    assert 0.015 < np.std(matrix.rows(0, 96)) < 0.025  # as a trained one's


def test_the_readme_has_a_place_for_the_table(tmp_path: Path) -> None:
    assert README.read_text().count(BEGIN) == README.read_text().count(END) == 1
    page = tmp_path / "README.md"
    page.write_text(f"a\n{BEGIN}\nold\n{END}\nb\n")
    for _ in range(2):
        update_readme("new", page)
    assert page.read_text() == f"a\n{BEGIN}\nnew\n{END}\nb\n"
    page.write_text("no place")
    with pytest.raises(SystemExit, match="no place for this table"):
        update_readme("new", page)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--groups", "speach"], "no group speach; there are speech, encoder, mixture"),
        (["--sizes", "tiny", "--update-readme"], "is of all groups in full sizes"),
    ],
)
def test_a_run_that_cannot_be_is_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["groups.py", *words])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
