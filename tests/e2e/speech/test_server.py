"""OpenAI's addresses for recordings, by its own client and by hand."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

import edgellm
import speech_checkpoints
from conftest_of_server import LONG, Server
from edgellm.server import ServerSettings
from edgellm.speech.transcriber import Transcriber
from speech_checkpoints import Shared, sound, wav
from tiny_package import write_package

Load = Callable[..., edgellm.SpeechModel]
WRITE, TRANSLATE = "/v1/audio/transcriptions", "/v1/audio/translations"


SHORT, LONGER = wav(sound(0.9)), wav(sound(2.6))


@pytest.fixture(scope="module")
def packages(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    speech = {kind: speech_checkpoints.package(kind, "fp32", shared) for kind in ("many", "english")}
    return {**speech, "text": write_package(tmp_path_factory.mktemp("text") / "tiny", LONG)}


@pytest.fixture
def serve(packages: dict[str, Path]) -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:
        yield lambda **given: stack.enter_context(Server(packages, ServerSettings(threads=1, **given)))


@pytest.fixture(scope="module")
def server(packages: dict[str, Path]) -> Iterator[Server]:
    with Server(packages, ServerSettings(threads=1)) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(server: Server, content: bytes = SHORT, path: str = WRITE, **fields: Any) -> httpx.Response:
    return server.http.post(path, data={"model": "many", **fields}, files={"file": ("one.wav", content)})


def heard(load: Load, content: bytes, kind: str = "many", **options: Any) -> edgellm.Transcription:
    return load(kind).transcribe(io.BytesIO(content), **options)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the client, about translations
def test_openai_client(client: openai.OpenAI, load: Load) -> None:
    given: dict[str, Any] = {"model": "many", "file": ("one.wav", LONGER)}
    expected = heard(load, LONGER)
    found = client.audio.transcriptions.create(**given)
    assert (found.text, found.usage.seconds) == (expected.text.strip(), 2.6)
    assert client.audio.transcriptions.create(**given, response_format="text") == expected.text.strip() + "\n"
    expected = heard(load, LONGER, language="de", prompt="abc", return_timestamps=True)
    verbose = client.audio.transcriptions.create(
        **given, language="de", prompt="abc", response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert (verbose.task, verbose.language, verbose.duration) == ("transcribe", "german", 2.6)
    assert [(each.start, each.end, each.text, tuple(each.tokens)) for each in verbose.segments] == [
        (each.start, each.end, each.text, each.tokens) for each in expected.segments
    ]
    assert [each.avg_logprob for each in verbose.segments] == [
        pytest.approx(each.written.logprob) for each in expected.segments
    ]
    assert all(0 <= each.no_speech_prob <= 1 and each.temperature == 0 for each in verbose.segments)
    assert verbose.segments[0].seek == 0 < verbose.segments[-1].seek
    translated = client.audio.translations.create(**given)
    assert translated.text == heard(load, LONGER, task="translate").text.strip()


def test_words(client: openai.OpenAI, load: Load) -> None:
    given: dict[str, Any] = {"model": "many", "file": ("one.wav", LONGER), "response_format": "verbose_json"}
    expected = heard(load, LONGER, return_timestamps="word")
    words = [(each.text.strip(), each.start, each.end) for each in expected.words]
    found = client.audio.transcriptions.create(**given, timestamp_granularities=["word"])
    assert [(each.word, each.start, each.end) for each in found.words] == words
    assert found.segments is None
    both = client.audio.transcriptions.create(**given, timestamp_granularities=["word", "segment"])
    assert (len(both.words), len(both.segments)) == (len(words), len(expected.segments))
    assert client.audio.transcriptions.create(**given).words is None


def test_a_stream_has_the_segments_and_the_whole(client: openai.OpenAI, load: Load) -> None:
    events = list(client.audio.transcriptions.create(model="many", file=("a.wav", LONGER), stream=True))
    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == heard(load, LONGER).text.lstrip()
    assert len(events) > 2


def test_subtitles(server: Server, load: Load) -> None:
    segments = heard(load, LONGER, return_timestamps=True).segments
    numbered = post(server, LONGER, response_format="srt").text.split("\n\n")[:-1]
    plain = post(server, LONGER, response_format="vtt")
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    first, *cues = plain.text.split("\n\n")[:-1]
    assert (first, len(numbered), len(cues)) == ("WEBVTT", len(segments), len(segments))
    for i, (one, two, segment) in enumerate(zip(numbered, cues, segments, strict=True), 1):
        number, times, text = one.split("\n", 2)
        assert (int(number), two) == (i, times.replace(",", ".") + "\n" + text)
        found = [int(h) * 3600 + int(m) * 60 + float(s) for h, m, s in re.findall(r"(\d+):(\d+):([\d.]+)", two)][:2]
        assert found == pytest.approx([segment.start, segment.end])
        assert re.fullmatch(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}", times)


def test_other_files_and_rates(server: Server, load: Load) -> None:
    soundfile = pytest.importorskip("soundfile")
    flac = io.BytesIO()
    soundfile.write(flac, sound(0.9), 16000, format="FLAC")
    assert post(server, flac.getvalue()).json()["text"] == heard(load, flac.getvalue()).text.strip()
    slow = wav(sound(0.9)[::2], 8000)
    assert post(server, slow).json()["text"] == heard(load, slow).text.strip()
    assert post(server, slow).json()["usage"] == {"type": "duration", "seconds": 0.9}


def test_english_models_are_told_english(server: Server, load: Load) -> None:
    expected = heard(load, SHORT, "english", return_timestamps=True)
    found = post(server, model="english", language="en", response_format="verbose_json").json()
    assert (found["text"], found["language"]) == (expected.text.strip(), "english")


def test_temperatures_sample(server: Server) -> None:
    texts = {post(server, temperature=1).json()["text"] for _ in range(4)}
    assert len(texts) > 1
    assert len({post(server, temperature=0).json()["text"] for _ in range(2)}) == 1


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"langauge": "en"}, None, "unknown field `langauge`"),
        ({"language": "klingon"}, "language", "which this model does not know"),
        ({"temperature": 2}, "temperature", "<= 1"),
        ({"temperature": "nan"}, "temperature", ">= 0"),
        ({"response_format": "docx"}, "response_format", "Invalid enum value 'docx'"),
        ({"timestamp_granularities[]": "segment"}, "timestamp_granularities[]", "for response_format verbose_json"),
        ({"timestamp_granularities": ["page"]}, "timestamp_granularities[][0]", "Invalid enum value 'page'"),
        ({"stream": True, "response_format": "srt"}, "stream", "a stream has no response_format srt"),
        ({"stream": "perhaps"}, "stream", "Expected `bool"),
        ({"language": ["en", "de"]}, "language", "the field language is there twice"),
        ({"prompt": "<|en|>"}, None, "special token"),
        ({"model": "text"}, "model", "reads no recordings: it is for text-generation"),
        ({"model": "english", "language": "de"}, "language", "English only"),
    ],
)
def test_errors_have_openais_shape(server: Server, fields: dict[str, Any], param: str, said: str) -> None:
    response = post(server, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert said in error["message"]


def test_what_translations_do_not_have(server: Server) -> None:
    for fields in ({"language": "de"}, {"stream": True}, {"timestamp_granularities[]": "word"}):
        assert "unknown field" in post(server, path=TRANSLATE, **fields).json()["error"]["message"]
    assert "only transcribes" in post(server, path=TRANSLATE, model="english").json()["error"]["message"]


def test_what_is_no_form(server: Server) -> None:
    def status(content: bytes, kind: str) -> tuple[int, str]:
        response = server.http.post(WRITE, content=content, headers={"content-type": kind})
        return response.status_code, response.json()["error"]["message"]

    assert status(b"{}", "application/json")[0] == 415
    assert status(b"a=b", "application/x-www-form-urlencoded")[0] == 415
    assert "boundary" in status(b"", "multipart/form-data")[1]
    assert status(b"--x\r\nno form", "multipart/form-data; boundary=x")[0] == 400
    assert "missing required field `file`" in status(b"--x--\r\n", "multipart/form-data; boundary=x")[1]
    text = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF\r\n--x--\r\n'
    assert "Expected `Upload`" in status(text, "multipart/form-data; boundary=x")[1]
    for content in (b"", b"no sound", SHORT[:30], wav(np.zeros(0))):
        error = post(server, content).json()["error"]
        assert error["param"] == "file"
        assert "sound" in error["message"] or "samples" in error["message"]
    two = [("file", ("a.wav", SHORT)), ("file", ("b.wav", SHORT))]
    assert "Too many files" in server.http.post(WRITE, data={"model": "many"}, files=two).text


def test_sizes_and_lengths(serve: Callable[..., Server]) -> None:
    server = serve(max_upload_bytes=60_000, max_body_bytes=1000, max_recording_seconds=1.5)
    assert post(server).status_code == 200, "larger than another body may be"
    assert post(server, LONGER).status_code == 413

    def pieces() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield bytes(1000)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert server.http.post(WRITE, content=pieces(), headers=kind).status_code == 413
    error = post(server, wav(sound(2.0)[::2], 8000)).json()["error"]
    assert (error["param"], error["message"]) == (
        "file", "the recording is longer than 1.5 seconds; give it in pieces"
    )  # fmt: skip


def test_nothing_of_a_request_is_logged_unless_asked(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="edgellm.server")  # which other tests silence
    post(serve(), prompt="secret")
    assert "secret" not in caplog.text
    post(serve(log_prompts=True), prompt="secret")
    assert "secret" in caplog.text
    assert "RIFF" not in caplog.text


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A window of any recording takes a while. What was decoded is in the list."""
    windows: list[str] = []
    decoded = Transcriber._decoded

    def slow(self: Transcriber, *args: Any) -> Any:
        windows.append("window")
        time.sleep(0.2)
        return decoded(self, *args)

    monkeypatch.setattr(Transcriber, "_decoded", slow)
    return windows


def test_a_client_that_goes_ends_its_request(serve: Callable[..., Server], slowed: list[str]) -> None:
    server, content = serve(), wav(sound(30.0))
    form: dict[str, Any] = {"data": {"model": "many"}, "files": {"file": ("a", content)}}
    post(server)
    slowed.clear()
    with pytest.raises(httpx.TimeoutException):
        server.http.post(WRITE, **form, timeout=1.0)
    with server.http.stream("POST", WRITE, data={"model": "many", "stream": "true"}, files=form["files"]) as response:
        next(response.iter_lines())
    assert post(server).status_code == 200, "it is its turn"
    time.sleep(0.5)
    begun = len(slowed)
    time.sleep(0.5)
    assert len(slowed) == begun < 40


def test_time_and_queue_have_limits(serve: Callable[..., Server], slowed: list[str]) -> None:
    server = serve(max_seconds=0.5)
    found = post(server, wav(sound(30.0)))
    assert found.status_code == 200
    assert len(slowed) < 10
    full = serve(max_waiting=1)
    long = {"file": ("a", wav(sound(30.0)))}
    with full.http.stream("POST", WRITE, data={"model": "many", "stream": "1"}, files=long) as one:
        lines = one.iter_lines()  # without which the client would go at once
        next(lines)
        refused = post(full)
        assert (refused.status_code, refused.headers.get("retry-after")) == (429, "1"), refused.text


def test_models_make_room_for_each_other(serve: Callable[..., Server], packages: dict[str, Path]) -> None:
    names = ("many", "english", "many")
    sizes = [sum(f.stat().st_size for f in packages[name].rglob("*") if f.is_file()) for name in names]
    server = serve(memory_bytes=max(sizes) + min(sizes) // 2)
    for name in names:
        assert post(server, model=name).status_code == 200
        cards = server.http.get("/v1/models").json()["data"]
        assert [card["id"] for card in cards if card["loaded"]] == [name]
