"""Segments as the files that players of films read."""

from __future__ import annotations

from collections.abc import Iterable

from edgellm.speech.results import Segment


def srt(segments: Iterable[Segment]) -> str:
    """SubRip: numbered, with a comma before milliseconds."""
    return "".join(
        f"{number}\n{_time(one.start, ',')} --> {_time(one.end, ',')}\n{_text(one)}\n\n"
        for number, one in enumerate(segments, 1)
    )


def vtt(segments: Iterable[Segment]) -> str:
    """WebVTT."""
    cues = (f"{_time(one.start, '.')} --> {_time(one.end, '.')}\n{_text(one)}\n\n" for one in segments)
    return "WEBVTT\n\n" + "".join(cues)


def _time(seconds: float, mark: str) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def _text(segment: Segment) -> str:
    """On one line, and without what would begin another cue."""
    return " ".join(segment.text.split()).replace("-->", "->")
