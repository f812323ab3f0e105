"""Many lines over one package: all are answered, in order; whatever stops the work, nothing is lost or done twice."""

from __future__ import annotations

import csv
import fcntl
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import edgellm
import edgellm_export
import encoder_families
from comparison import relative
from edgellm.bulk import Status, Summary, run_batch
from edgellm.bulk import generating as generating_module
from edgellm.bulk.bodies import OWN
from edgellm.bulk.journal import Journal, journal_of
from edgellm.bulk.lines import Line, Outcome
from edgellm.cli import cli
from edgellm.engines.in_place.decoder import Engine as DecoderEngine
from edgellm.errors import (
    BatchError,
    EdgellmError,
    InputError,
    JournalMismatchError,
    OptionError,
    OutOfMemoryError,
    OutputExistsError,
    TaskError,
)
from edgellm.openai.schema import ChatRequest, CompletionRequest
from encoders.test_sentences import sentence_files
from families import save_checkpoint

Package = Callable[..., Path]
Shared = Callable[[str, Callable[[Path], Any]], Path]

BATCH = [sys.executable, "-m", "edgellm", "batch"]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
UNQUOTED = 'a comma, a "quote",\nand\r\na line break'
FREE = {"max_new_tokens": 20, "min_new_tokens": 20}
SLOW = ["--max-rows", "1", "--threads", "1", "--max-new-tokens", "20", "--min-new-tokens", "20"]


@pytest.fixture
def llama(package: Package) -> Path:
    return package("llama")


@pytest.fixture
def chat_package(reference: Callable[[str], Any], shared: Shared) -> Path:
    """A decoder with a chat template."""

    def make(path: Path) -> None:
        checkpoint = save_checkpoint(reference("llama"), path.parent / "batch-chat-checkpoint")
        (checkpoint / "chat_template.jinja").write_text(TEMPLATE)
        options: Any = {"precision": "fp32", "verify_quality": False, "calibrate": False}
        edgellm_export.export(checkpoint, path, **options)

    return shared("packages/batch-chat", make)


@pytest.fixture
def encoder(shared: Shared) -> Callable[[str], Path]:
    """A package by task; the one for feature-extraction is of a sentence encoder."""

    def make(task: str) -> Path:
        def export(path: Path) -> None:
            checkpoint = path.parent / f"batch-{task}-checkpoint"
            encoder_families.save_checkpoint(encoder_families.make_model("bert", task), checkpoint)
            if task == "feature-extraction":
                sentence_files(checkpoint, pooling={"pooling_mode_mean_tokens": True}, normalize=True)
            edgellm_export.export(checkpoint, path, precision="fp32", verify_quality=False, calibrate=False)

        return shared(f"packages/batch-{task}", export)

    return make


def write_lines(path: Path, values: Sequence[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def prompts(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{number} and more", "id": number} for number in range(count)]


def request(number: int, url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    return {"custom_id": f"r{number}", "method": "POST", "url": url, "body": body}


# What lines ask for, and what they get


def test_lines_are_answered_in_order_as_each_is_alone(llama: Path, tmp_path: Path) -> None:
    """Many more lines than are in flight at once; short and long answers, so that they end out of order."""
    source = write_lines(tmp_path / "in.jsonl", prompts(60))
    summary = run_batch(llama, source, tmp_path / "out.jsonl", max_rows=3, max_new_tokens=12)
    assert (summary.lines, summary.answered, summary.failed, summary.reused) == (60, 60, 0, 0)
    model = edgellm.load(llama)
    alone = [model.generate(line["prompt"], max_new_tokens=12) for line in prompts(60)]
    assert read_lines(tmp_path / "out.jsonl") == [
        {**line, "answer": one.text, "finish_reason": one.finish_reason, "error": None}
        for line, one in zip(prompts(60), alone, strict=True)
    ]
    assert summary.new_tokens == sum(len(one.tokens) for one in alone)
    assert summary.prompt_tokens == sum(one.prompt_tokens for one in alone)


def test_no_more_of_the_input_is_read_than_is_in_flight(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    seen: list[int] = []
    original = generating_module.Generating.ask
    monkeypatch.setattr(
        generating_module.Generating, "ask", lambda s, line: (read.append(line.number), original(s, line))[1]
    )
    add = Journal.add

    def added(journal: Journal, outcome: Outcome) -> None:
        add(journal, outcome)
        totals = journal.totals
        seen.append(len(read) - totals.answered)

    monkeypatch.setattr(Journal, "add", added)
    run_batch(llama, write_lines(tmp_path / "in.jsonl", prompts(80)), tmp_path / "out.jsonl", max_rows=2, **FREE)
    assert max(seen) <= generating_module.AHEAD * 2


def test_openai_s_lines(chat_package: Path, tmp_path: Path) -> None:
    hello, model = [{"role": "user", "content": "Hello"}], edgellm.load(chat_package)
    lines = [
        request(0, messages=hello, max_tokens=5, model="mine"),
        request(1, "/v1/completions", prompt=[[70], [70, 71]], max_tokens=4),
        request(2, messages=hello, temperature=0.8, n=2, seed=3, max_completion_tokens=6),
        request(3, messages=hello, max_tokens=5, temperatur=1),
        request(4, messages=hello, max_tokens=-1),
        request(5, messages=[{"role": "user", "content": "long " * 200}]),
        request(6, "/v1/embeddings", input="x"),
        request(7, "/v1/images", prompt="x"),
    ]
    source, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    with source.open("a") as file:
        file.write('{"custom_id": "r8", \n[1]\n')
    summary = run_batch(chat_package, source, output)
    assert (summary.lines, summary.answered, summary.failed) == (10, 3, 7)
    found = read_lines(output)
    assert [line["custom_id"] for line in found] == [*(f"r{number}" for number in range(8)), None, None]
    assert len({line["id"] for line in found}) == 10
    assert [line["response"]["status_code"] for line in found] == [200] * 3 + [400] * 7
    assert {line["error"] for line in found} == {None}
    first, second, third, *bad = [line["response"]["body"] for line in found]
    alone = model.chat(hello, max_new_tokens=5)
    (choice,) = first["choices"]
    assert (first["object"], first["model"]) == ("chat.completion", "mine")
    assert choice["message"] == {"role": "assistant", "content": alone.text, "refusal": None}
    assert first["usage"]["completion_tokens"] == len(alone.tokens)
    two = [model.generate([70], max_new_tokens=4), model.generate([70, 71], max_new_tokens=4)]
    assert [choice["text"] for choice in second["choices"]] == [one.text for one in two]
    assert second["model"] == chat_package.name
    sampled = model.chat(hello, do_sample=True, temperature=0.8, num_return_sequences=2, seed=3, max_new_tokens=6)
    assert [choice["message"]["content"] for choice in third["choices"]] == [one.text for one in sampled.sequences]
    errors = [body["error"] for body in bad]
    assert all(error["type"] == "invalid_request_error" for error in errors)
    assert [error["param"] for error in errors] == ["temperatur", "max_tokens", *[None] * 5]
    assert errors[2]["code"] == "context_length_exceeded"
    for error, words in zip(
        errors[1:],
        ["Expected `int` >= 1", "context", "/v1/embeddings is not for this package", "url is '/v1/images'",
         "the line is not JSON", "the line is a JSON list"],
        strict=True,
    ):  # fmt: skip
        assert words in error["message"]


def test_a_stop_string_is_left_out_for_openai_alone(chat_package: Path, tmp_path: Path) -> None:
    text = edgellm.load(chat_package).generate("Hello", max_new_tokens=12).text
    stop = text[3:5]
    before = text[: text.index(stop)]
    line = request(0, "/v1/completions", prompt="Hello", max_tokens=12, stop=[stop])
    run_batch(chat_package, write_lines(tmp_path / "in.jsonl", [line]), tmp_path / "out.jsonl")
    (choice,) = read_lines(tmp_path / "out.jsonl")[0]["response"]["body"]["choices"]
    assert (choice["text"], choice["finish_reason"]) == (before, "stop")
    plain = write_lines(tmp_path / "plain.jsonl", [{"prompt": "Hello"}])
    for _ in range(2):  # options come back from the journal as they were given
        run_batch(chat_package, plain, tmp_path / "plain-out.jsonl", max_new_tokens=12, stop_strings=(stop,))
    (answer,) = read_lines(tmp_path / "plain-out.jsonl")
    assert (answer["answer"], answer["finish_reason"]) == (before + stop, "stop_string")


def test_a_prompt_of_columns(chat_package: Path, tmp_path: Path) -> None:
    """A template, a column, and both through the chat template; a line that lacks a column fails by itself."""
    model, options = edgellm.load(chat_package), {"max_new_tokens": 6}
    values = [{"a": {"b": "x"}, "n": 5}, {"n": 6}, {"a": {"b": "y"}, "n": None}]
    source = write_lines(tmp_path / "in.jsonl", values)
    run_batch(chat_package, source, tmp_path / "1.jsonl", template="{{{a.b}}} {n}", **options)
    first, *rest = read_lines(tmp_path / "1.jsonl")
    assert first == {
        **values[0], "answer": model.generate("{x} 5", **options).text, "finish_reason": first["finish_reason"],
        "error": None,
    }  # fmt: skip
    assert [line["error"] for line in rest] == [
        "the template asks for {a.b}, and there are n", "the template asks for {n}, and there are a, n"
    ]  # fmt: skip
    run_batch(chat_package, source, tmp_path / "2.jsonl", column="a.b", system="be", **options)
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "x"}]
    assert read_lines(tmp_path / "2.jsonl")[0]["answer"] == model.chat(messages, **options).text
    chats = write_lines(tmp_path / "chats.jsonl", [{"messages": messages}, {"messages": []}])
    run_batch(chat_package, chats, tmp_path / "3.jsonl", **options)
    found = read_lines(tmp_path / "3.jsonl")
    assert found[0]["answer"] == model.chat(messages, **options).text
    assert found[1]["error"] == "messages is empty, expected at least one"


def test_csv_keeps_its_fields(llama: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    with source.open("w", newline="", encoding="utf-8-sig") as file:
        rows = csv.writer(file)
        rows.writerows([["the prompt", "note"], [UNQUOTED, "é"], [], ["two", ""]])
    run_batch(llama, source, output, template="{note}{the prompt}", max_new_tokens=5)
    with output.open(newline="", encoding="utf-8") as file:
        header, first, second = csv.reader(file)
    assert header == ["the prompt", "note", "answer", "finish_reason", "error"]
    model = edgellm.load(llama)
    alone = [model.generate(text, max_new_tokens=5) for text in (f"é{UNQUOTED}", "two")]
    assert first == [UNQUOTED, "é", alone[0].text, alone[0].finish_reason, ""]
    assert second == ["two", "", alone[1].text, alone[1].finish_reason, ""]


def test_parquet_keeps_its_types(llama: Path, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table({
        "prompt": [f"{number}" for number in range(600)],
        "when": arrow.array(range(600), arrow.timestamp("ms")),
        "tags": [[number] for number in range(600)],
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=100)
    run_batch(llama, tmp_path / "in.parquet", tmp_path / "out.parquet", max_new_tokens=2)
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.select(table.column_names) == table
    assert found.column_names[3:] == ["answer", "finish_reason", "error"]
    answer = edgellm.load(llama).generate("77", max_new_tokens=2).text
    assert found["answer"][77].as_py() == answer
    assert found["error"].null_count == 600
    run_batch(llama, tmp_path / "in.parquet", tmp_path / "out.jsonl", max_new_tokens=2)
    line = read_lines(tmp_path / "out.jsonl")[77]
    assert (line["when"], line["tags"], line["answer"]) == ("1970-01-01 00:00:00.077000", [77], answer)


def test_embeddings(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    package = encoder("feature-extraction")
    model = edgellm.load(package)
    texts = [f"text {'x' * (number % 9)}" for number in range(70)]
    expected = model.embed(texts)
    source = write_lines(tmp_path / "in.jsonl", [{"text": text} for text in [*texts[:40], "y" * 50, *texts[40:]]])
    summary = run_batch(package, source, tmp_path / "out.jsonl")
    assert (summary.answered, summary.failed) == (70, 1)
    found = read_lines(tmp_path / "out.jsonl")
    failed = found.pop(40)
    assert failed["embedding"] is None
    assert "tokens, this model takes at most 20" in failed["error"]
    assert relative(np.array([line["embedding"] for line in found]), expected) < 1e-6
    requests = [request(0, "/v1/embeddings", input=texts[:3]), request(1, "/v1/embeddings", input=[70, 71, 72])]
    run_batch(package, write_lines(tmp_path / "r.jsonl", requests), tmp_path / "r-out.jsonl")
    first, second = (line["response"]["body"] for line in read_lines(tmp_path / "r-out.jsonl"))
    assert relative(np.array([each["embedding"] for each in first["data"]]), expected[:3]) < 1e-6
    assert relative(np.array(second["data"][0]["embedding"]), model.embed([[70, 71, 72]])[0]) < 1e-6
    assert second["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_embeddings_as_csv_and_parquet(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    package, text = encoder("feature-extraction"), "some text"
    expected = edgellm.load(package).embed([text])[0]
    (tmp_path / "in.csv").write_text(f"text,id\n{text},1\n")
    run_batch(package, tmp_path / "in.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert relative(np.array(json.loads(row["embedding"])), expected) < 1e-6
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"text": [text]}), tmp_path / "in.parquet")
    run_batch(package, tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = parquet.read_table(tmp_path / "out.parquet")["embedding"]
    assert found.type == arrow.list_(arrow.float32())
    assert relative(np.array(found[0].as_py()), expected) < 1e-6


def test_labels(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    package = encoder("text-classification")
    pipe = edgellm.pipeline("text-classification", package)
    source = write_lines(
        tmp_path / "in.jsonl", [{"text": "good", "label": "x"}, {"text": "a", "text_pair": "b"}, {"text": 5}]
    )
    with pytest.raises(OptionError, match="has a column 'label' already; name the answers' columns otherwise"):
        run_batch(package, source, tmp_path / "out.jsonl")
    run_batch(package, source, tmp_path / "out.jsonl", prefix="its_")
    first, second, third = read_lines(tmp_path / "out.jsonl")
    (alone,) = pipe("good")
    assert first == {
        "text": "good",
        "label": "x",
        "its_label": alone["label"],
        "its_score": pytest.approx(alone["score"]),
        "its_error": None,
    }
    assert second["its_label"] == pipe({"text": "a", "text_pair": "b"})["label"]
    assert third["its_error"] == "text is a int, expected text"


def test_an_encoder_decoder(tiny: Callable[[str], Path], shared: Shared, tmp_path: Path) -> None:
    options: Any = {"precision": "fp32", "verify_quality": False, "calibrate": False}
    package = shared("packages/batch-t5", lambda path: edgellm_export.export(tiny("encoder-decoder"), path, **options))
    run_batch(
        package, write_lines(tmp_path / "in.jsonl", prompts(9)), tmp_path / "out.jsonl", num_beams=2, max_length=9
    )
    model = edgellm.load(package)
    chat = write_lines(tmp_path / "chat.jsonl", [{"messages": [{"role": "user", "content": "Hello"}]}])
    run_batch(package, chat, tmp_path / "chat-out.jsonl")
    assert "this package turns one text into another" in read_lines(tmp_path / "chat-out.jsonl")[0]["error"]
    assert [line["answer"] for line in read_lines(tmp_path / "out.jsonl")] == [
        model.generate(line["prompt"], num_beams=2, max_length=9).text for line in prompts(9)
    ]


# What stops it


def entries(journal: Path) -> list[int]:
    """The lines that a journal has whole, in its order; the head and what is cut off left out."""
    return [json.loads(line[9:])["line"] for line in journal.read_bytes().split(b"\n")[1:-1]]


def killed_and_resumed(package: Path, place: Path, kills: int, generator: random.Random) -> None:
    """A batch that is killed again and again, between two lines or in the midst of one, and then left alone."""
    lines: list[Any] = prompts(150)
    lines[100] = {"no prompt": 1}  # its journal is then kept to the end
    source, output = write_lines(place / "in.jsonl", lines), place / "out.jsonl"
    command = [*BATCH, str(package), str(source), str(output), *SLOW]
    done: list[int] = []
    for kill in range(kills):
        more, later = generator.randint(0, 300 // kills // 2), generator.random() * 0.03
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and child.poll() is None:
                if journal_of(output).exists() and len(entries(journal_of(output))) >= len(done) + more:
                    break
                time.sleep(0.002)
            time.sleep(later)
            child.kill()
        assert child.returncode in (-signal.SIGKILL, 9), child.stderr
        found = entries(journal_of(output))
        assert found[: len(done)] == done, f"kill {kill}"
        assert len(found) == len(set(found))
        done = found
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 9, ended.stderr
    assert f"150 lines: 149 answered, 1 failed, {len(done)} reused" in ended.stdout
    found = entries(journal_of(output))
    assert found[: len(done)] == done
    assert sorted(found) == list(range(150))
    run_batch(package, source, place / "whole.jsonl", threads=1, **FREE)
    assert output.read_bytes() == (place / "whole.jsonl").read_bytes()


def test_nothing_is_lost_or_done_twice_when_it_is_killed(llama: Path, tmp_path: Path) -> None:
    killed_and_resumed(llama, tmp_path, 4, random.Random(0))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_twenty_kills(llama: Path, tmp_path: Path, seed: int) -> None:
    killed_and_resumed(llama, tmp_path, 20, random.Random(seed))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_how_to_go_on(llama: Path, tmp_path: Path, number: signal.Signals) -> None:
    source, output = write_lines(tmp_path / "in.jsonl", prompts(200)), tmp_path / "out.jsonl"
    command = [*BATCH, str(llama), str(source), str(output), *SLOW]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        while not (journal_of(output).exists() and entries(journal_of(output))):
            time.sleep(0.01)
        child.send_signal(number)
        out, errors = child.communicate(timeout=20)
    assert child.returncode == 128 + number
    done = len(entries(journal_of(output)))
    assert 0 < done < 200
    expected = [f"stopped: {done} of 200 lines are done and kept; run the same command again to go on"]
    assert [line for line in errors.splitlines() if line] == [*expected, *["interrupted"] * (number == signal.SIGINT)]
    assert (out, output.exists()) == ("", False)
    summary = run_batch(llama, source, output, threads=1, max_rows=8, **FREE)
    assert (summary.answered, summary.reused) == (200, done)


@pytest.fixture
def half_done(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """A batch of 8 lines that was stopped when 4 were done: its package, input and output."""
    source, output = write_lines(tmp_path / "in.jsonl", prompts(8)), tmp_path / "out.jsonl"
    add = Journal.add

    def stopping(journal: Journal, outcome: Outcome) -> None:
        add(journal, outcome)
        if journal.totals.answered == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_batch(llama, source, output, max_new_tokens=5)
    return llama, source, output


def test_a_last_line_that_was_cut_off_at_any_byte(half_done: tuple[Path, Path, Path]) -> None:
    """Also within the head, which is written first. What is whole is kept byte for byte, the line is done again."""
    *_, output = half_done
    journal = journal_of(output)
    whole = journal.read_bytes()
    head, *rest = whole.splitlines(keepends=True)
    identity = {name: value for name, value in json.loads(head[9:]).items() if name != "edgellm_batch"}
    numbers = entries(journal)
    line = Line(numbers[-1], "", {}, 1)
    for length in range(len(whole) + 1):
        if len(head) < length < len(whole) - len(rest[-1]):
            continue
        journal.write_bytes(whole[:length])
        kept = 0 if length < len(head) + len(rest[0]) else 4 if length == len(whole) else 3
        with Journal.opened(journal, identity, 8) as found:
            assert found.totals.answered == kept
            assert [number in found for number in numbers] == [place < kept for place in range(4)]
            if kept == 3:
                found.add(Outcome(line, {"answer": "again"}))
        if kept == 3:
            assert journal.read_bytes().endswith(b"\n")
            assert journal.read_bytes()[: len(whole) - len(rest[-1])] == whole[: len(whole) - len(rest[-1])]
            assert entries(journal) == numbers


def test_a_damaged_line_is_done_again(half_done: tuple[Path, Path, Path]) -> None:
    package, source, output = half_done
    head, first, second, *rest = journal_of(output).read_bytes().splitlines(keepends=True)
    journal_of(output).write_bytes(b"".join([head, first, second.replace(b"answer", b"anewer"), *rest]))
    summary = run_batch(package, source, output, max_new_tokens=5)
    assert (summary.answered, summary.reused) == (8, 3)
    run_batch(package, source, output.with_name("whole.jsonl"), max_new_tokens=5)
    assert output.read_bytes() == output.with_name("whole.jsonl").read_bytes()


def test_a_finished_batch_is_not_done_again(llama: Path, tmp_path: Path) -> None:
    source, output = write_lines(tmp_path / "in.jsonl", prompts(5)), tmp_path / "out.jsonl"
    run_batch(llama, source, output, max_new_tokens=5)
    before = output.read_bytes()
    assert journal_of(output).stat().st_size < 400  # its answers are let go
    summary = run_batch(llama, source, output, max_new_tokens=5)
    assert (summary.answered, summary.reused, summary.new_tokens) == (5, 5, 0)
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.journal"]
    output.unlink()
    with pytest.raises(BatchError, match="was written and is gone, and its answers with it; start anew with --restart"):
        run_batch(llama, source, output, max_new_tokens=5)
    run_batch(llama, source, output, max_new_tokens=5, restart=True)
    assert output.read_bytes() == before


def test_killed_while_it_finishes(half_done: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after the output has its name, and before the journal is short."""
    package, source, output = half_done
    replace = Path.replace
    for moment, is_there in ((".out.jsonl.partial", False), (".out.jsonl.journal.partial", True)):

        def killed(self: Path, target: Path, moment: str = moment) -> Path:
            if self.name == moment:
                raise KeyboardInterrupt
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                run_batch(package, source, output, max_new_tokens=5)
        assert output.exists() == is_there
    assert run_batch(package, source, output, max_new_tokens=5).reused == 8


@pytest.mark.parametrize("size", ["size=8k", "size=12k"])
def test_a_disk_that_fills_up(llama: Path, tmp_path: Path, small_disk: Callable[[str], Path], size: str) -> None:
    """With the journal, or with the output. What fits is kept; when there is room, the rest follows."""
    source = write_lines(tmp_path / "in.jsonl", prompts(80))
    place = small_disk(size)
    with pytest.raises(BatchError, match="No space left on device; what is done is kept: make room, and run the same"):
        run_batch(llama, source, place / "out.jsonl", **FREE)
    done = len(entries(journal_of(place / "out.jsonl")))
    assert done > 10
    subprocess.run(["mount", "-o", "remount,size=1m", str(place)], check=True)
    assert run_batch(llama, source, place / "out.jsonl", **FREE).reused == done
    run_batch(llama, source, tmp_path / "whole.jsonl", **FREE)
    assert (place / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# Journals of other batches, and files that are in the way


def test_a_journal_of_another_batch_says_what_differs(half_done: tuple[Path, Path, Path], chat_package: Path) -> None:
    package, source, output = half_done
    with pytest.raises(
        JournalMismatchError, match="options: max_new_tokens is 5 there and 6 here, stop_strings is not given"
    ) as e:
        run_batch(package, source, output, max_new_tokens=6, stop_strings=("a",), top_k=None)
    assert "give another output, or start anew with --restart, which throws its answers away" in str(e.value)
    with pytest.raises(JournalMismatchError, match="the package differs"):
        run_batch(chat_package, source, output, max_new_tokens=5)
    before = source.read_bytes()
    write_lines(source, [*prompts(8), {"prompt": "more"}])
    with pytest.raises(JournalMismatchError, match="the input differs"):
        run_batch(package, source, output, max_new_tokens=5)
    source.write_bytes(before)
    assert run_batch(package, source, output, max_new_tokens=5, max_rows=2, threads=1, retries=0).reused == 4
    assert run_batch(package, source, output, max_new_tokens=6, restart=True).reused == 0


def test_a_journal_without_an_outcome_is_in_nobody_s_way(half_done: tuple[Path, Path, Path]) -> None:
    """What a kill leaves while the model is loaded."""
    package, source, output = half_done
    journal_of(output).write_bytes(journal_of(output).read_bytes().splitlines(keepends=True)[0])
    assert run_batch(package, source, output, max_new_tokens=6).reused == 0


def test_two_processes_are_not_at_one_batch(half_done: tuple[Path, Path, Path]) -> None:
    package, source, output = half_done
    head = journal_of(output).read_bytes().splitlines()[0]
    identity = {name: value for name, value in json.loads(head[9:]).items() if name != "edgellm_batch"}
    with Journal.opened(journal_of(output), identity, 8), pytest.raises(BatchError, match="another process is at this"):
        run_batch(package, source, output, max_new_tokens=5)


def test_a_journal_that_another_process_takes_away_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its being opened and locked: what is written there would be nowhere."""
    flock, path = fcntl.flock, tmp_path / "out.jsonl.journal"
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: (path.unlink(), flock(*arguments)))
    with pytest.raises(BatchError, match="another process is at this batch"), Journal.opened(path, {}, 1):
        raise AssertionError("it was opened")


def test_other_files_are_left_alone(llama: Path, tmp_path: Path) -> None:
    source, output = write_lines(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    output.write_text("mine")
    with pytest.raises(OutputExistsError, match="and no journal of a batch beside it"):
        run_batch(llama, source, output, max_new_tokens=2)
    journal_of(output).write_text("mine, too")
    with pytest.raises(BatchError, match="is in the way: it is no journal of a batch"):
        run_batch(llama, source, output, max_new_tokens=2)
    assert (output.read_text(), journal_of(output).read_text()) == ("mine", "mine, too")


# Lines that fail


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Exception]], list[Exception]]:
    """Have the next prompts that are read fail with these errors."""

    def fail(errors: list[Exception]) -> list[Exception]:
        read = DecoderEngine.read

        def failing_read(self: DecoderEngine, *arguments: Any, **options: Any) -> Iterator[Any]:
            if errors:
                raise errors.pop(0)
            return (yield from read(self, *arguments, **options))

        monkeypatch.setattr(DecoderEngine, "read", failing_read)
        monkeypatch.setattr(generating_module, "PAUSE_S", 0.01)
        return errors

    return fail


@pytest.mark.parametrize("error", [OutOfMemoryError("no memory"), RuntimeError("a bug")])
def test_what_fails_for_a_passing_cause_is_tried_again(
    llama: Path, tmp_path: Path, failing: Callable[[list[Exception]], list[Exception]], error: Exception
) -> None:
    source = write_lines(tmp_path / "in.jsonl", prompts(6))
    left = failing([error] * 3)
    summary = run_batch(llama, source, tmp_path / "out.jsonl", max_new_tokens=5, max_rows=2)
    assert (summary.answered, left) == (6, [])
    answers = [line["answer"] for line in read_lines(tmp_path / "out.jsonl")]
    assert answers == [edgellm.load(llama).generate(line["prompt"], max_new_tokens=5).text for line in prompts(6)]


def test_what_keeps_failing_can_be_tried_in_a_later_run(
    llama: Path, tmp_path: Path, failing: Callable[[list[Exception]], list[Exception]]
) -> None:
    source, output = write_lines(tmp_path / "in.jsonl", [*prompts(3), {"none": 1}]), tmp_path / "out.jsonl"
    errors = failing([OutOfMemoryError("no memory")] * 1000)
    summary = run_batch(llama, source, output, max_new_tokens=5, retries=2)
    assert (summary.answered, summary.failed) == (0, 4)
    assert {line["error"] for line in read_lines(output)[:3]} == {"no memory"}
    again = run_batch(llama, source, output, max_new_tokens=5)
    assert (again.failed, again.reused) == (4, 4)
    errors.clear()
    tried = run_batch(llama, source, output, max_new_tokens=5, retry_errors=True)
    assert (tried.answered, tried.failed, tried.reused) == (3, 1, 0)
    assert [line["error"] is None for line in read_lines(output)] == [True, True, True, False]
    assert run_batch(llama, source, output, max_new_tokens=5).reused == 4


def test_an_encoder_s_passing_failure_is_one_line_s(
    encoder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, embed = encoder("feature-extraction"), edgellm.EncoderModel.embed
    failures = [OutOfMemoryError("no memory")] * 2

    def failing_embed(self: edgellm.EncoderModel, texts: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return embed(self, texts, **options)

    monkeypatch.setattr(edgellm.EncoderModel, "embed", failing_embed)
    source = write_lines(tmp_path / "in.jsonl", [{"text": f"{number}"} for number in range(8)])
    assert run_batch(package, source, tmp_path / "out.jsonl").answered == 8


# Bad input, and the command


@pytest.mark.parametrize(
    ("name", "content", "options", "kind", "message"),
    [
        ("in.txt", "x", {}, OptionError, "does not say what it is; expected a name that ends with .jsonl"),
        ("in.csv", "", {}, InputError, "is empty; expected a first row"),
        ("in.csv", "prompt,prompt\n1,2\n", {}, InputError, "two columns are named 'prompt'"),
        ("in.csv", "prompt\n1,2\n", {}, InputError, "line 2: 2 fields, expected 1"),
        ("in.csv", 'prompt\nok\n"a"b\n', {}, InputError, "line 3: not a row of CSV"),
        ("in.csv", "text\n1\n", {}, OptionError, "has no column 'prompt', found text; say with --column"),
        ("in.csv", "prompt\n1\n", {"template": "{x}"}, OptionError, "has no column 'x', found prompt"),
        ("in.csv", "prompt,error\n1,2\n", {}, OptionError, "has a column 'error' already"),
        ("in.jsonl", '{"prompt": "x"}', {"template": "x", "column": "y"}, OptionError, "give one of them"),
        ("in.jsonl", '{"prompt": "x"}', {"num_beams": 0}, OptionError, "num_beams is 0"),
        ("in.jsonl", '{"prompt": "x"}', {"retries": -1}, OptionError, "retries is -1, expected a whole number from 0"),
        ("in.jsonl", '{"prompt": "x"}', {"max_rows": 0}, OptionError, "max_rows is 0, expected a whole number from 1"),
        ("in.jsonl", '{"prompt": "x"}', {"overflow": "shift"}, OptionError, 'overflow is "shift"'),
        ("in.jsonl", '{"prompt": "x"}', {"truncation": True}, OptionError, "truncation has no effect on a package for"),
        ("in.jsonl", '{"prompt": "x"}', {"do_sample": True, "num_return_sequences": 2}, OptionError, "room for one"),
        ("in.jsonl", '{"custom_id": "x", "body": {}}', {"chat": True}, OptionError, "say all that they ask for"),
    ],
)  # fmt: skip
def test_bad_input(
    llama: Path,
    tmp_path: Path,
    name: str,
    content: str,
    options: dict[str, Any],
    kind: type[EdgellmError],
    message: str,
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(kind, match=re.escape(message)):
        run_batch(llama, tmp_path / name, tmp_path / f"out{Path(name).suffix}", **options)
    assert [path.name for path in tmp_path.iterdir()] == [name]  # no journal that would be another batch's


JUNK: list[Any] = [True, -1, 0, 0.5, 1e300, "x", "", [], [[]], [1, "x"], ["x"], {}, {"a": 1}, 10**30]


def test_no_value_of_a_field_stops_a_batch(chat_package: Path, tmp_path: Path) -> None:
    """Each has an answer or an error of its own, and none is unexpected."""
    hello, usual = [{"role": "user", "content": "Hello"}], {"max_tokens": 1, "temperature": 0}
    lines = [
        request(number, url, **{**usual, **asked, name: junk})
        for url, kind, asked in (
            ("/v1/chat/completions", ChatRequest, {"messages": hello}),
            ("/v1/completions", CompletionRequest, {"prompt": "Hello"}),
        )
        for name in sorted(OWN.union(kind.__struct_fields__))
        for number, junk in enumerate(JUNK)
    ]  # fmt: skip
    lines += [
        {**request(0, messages=hello, max_tokens=1), name: junk} for name in ("url", "body", "method") for junk in JUNK
    ]
    lines += [request(0, messages=[{"role": "user", **part}]) for part in ({"content": junk} for junk in JUNK)]
    summary = run_batch(chat_package, write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl", max_rows=64)
    found = read_lines(tmp_path / "out.jsonl")
    assert summary.answered > 150
    bad = [line["response"]["body"]["error"] for line in found if line["response"]["status_code"] != 200]
    assert [error for error in bad if error["type"] != "invalid_request_error"] == []


def test_files_and_packages_that_do_not_fit(
    llama: Path, encoder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lines(tmp_path / "in.jsonl", prompts(2))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        run_batch(llama, tmp_path / "no.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="is no file"):
        run_batch(llama, tmp_path, tmp_path / "out.jsonl")
    with pytest.raises(OptionError, match="is input and output"):
        run_batch(llama, source, source)
    with pytest.raises(OptionError, match=r"would be csv, and .* is jsonl"):
        run_batch(llama, source, tmp_path / "out.csv")
    with pytest.raises(BatchError, match="cannot be written: No such file"):
        run_batch(llama, source, tmp_path / "none" / "out.jsonl")
    with pytest.raises(TaskError, match="is a package for fill-mask, and lines are for text-generation"):
        run_batch(encoder("fill-mask"), source, tmp_path / "out.jsonl")
    with pytest.raises(OptionError, match="max_new_tokens has no effect on a package for feature-extraction"):
        run_batch(encoder("feature-extraction"), source, tmp_path / "out.jsonl", max_new_tokens=3)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "in.parquet").write_bytes(b"")
    with pytest.raises(edgellm.MissingDependencyError, match=r"pip install edgellm\[batch\]"):
        run_batch(llama, tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_an_empty_input(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    assert run_batch(llama, tmp_path / "in.jsonl", tmp_path / "out.jsonl").lines == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_lone_surrogate_is_a_line_s_own_error(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "\\ud800"}\n{"prompt": "ä"}\n')
    assert run_batch(llama, tmp_path / "in.jsonl", tmp_path / "out.jsonl", max_new_tokens=2).failed == 1
    first, second = read_lines(tmp_path / "out.jsonl")
    assert (first["prompt"], second["prompt"]) == ("\ud800", "ä")
    assert "lone surrogate" in first["error"]


def test_the_command(llama: Path, tmp_path: Path) -> None:
    source, output = write_lines(tmp_path / "in.jsonl", [*prompts(3), {}]), tmp_path / "out.jsonl"
    arguments = ["batch", str(llama), str(source), str(output), "--max-new-tokens", "4"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 9
    assert result.stdout.startswith("4 lines: 3 answered, 1 failed, 0 reused; ")
    result = CliRunner().invoke(cli, [*arguments, "--json"])
    assert result.exit_code == 9
    assert json.loads(result.stdout)["reused"] == 4
    write_lines(source, prompts(3))
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr.startswith("error: ")
    result = CliRunner().invoke(cli, [*arguments, "--restart"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("3 lines: 3 answered, 0 failed, 0 reused; ")


def test_progress_is_told(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgellm.bulk.pace.INTERVAL_S", 0.02)
    told: list[Status] = []
    source = write_lines(tmp_path / "in.jsonl", prompts(30))
    summary: Summary = run_batch(llama, source, tmp_path / "o.jsonl", max_rows=1, progress=told.append, **FREE)
    assert told[-1].done == told[-1].total == 30
    assert told[-1].new_tokens == summary.new_tokens
    assert [status.done for status in told] == sorted(status.done for status in told)
    assert any(status.remaining_s for status in told)
    assert told[-1].remaining_s == pytest.approx(0, abs=0.01)
