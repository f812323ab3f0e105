"""What was written of half a minute, cut by its timestamps."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.speech.results import Segment, Written


@dataclass(frozen=True)
class Clock:
    """`first`: the first timestamp's token; None: there are none. A timestamp counts `frames_per_step` frames, of
    `seconds_per_step` seconds."""

    first: int | None
    frames_per_step: int
    seconds_per_step: float

    @property
    def seconds_per_frame(self) -> float:
        return self.seconds_per_step / self.frames_per_step

    def is_time(self, token: int) -> bool:
        return self.first is not None and token >= self.first

    def steps(self, token: int) -> int:
        assert self.first is not None
        return token - self.first


def cut(written: Written, start: int, frames: int, clock: Clock) -> tuple[list[Segment], int]:
    """The segments of what was written of `frames` frames from `start` on, and how many frames they cover: where a
    piece was left open, the next window begins at its beginning."""
    tokens, offset = list(written.tokens), start * clock.seconds_per_step / clock.frames_per_step
    times = [clock.is_time(token) for token in tokens]
    pairs = [i for i in range(1, len(tokens)) if times[i - 1] and times[i]]

    def segment(first: int, stop: int, begin: float, end: float) -> Segment:
        return Segment(
            offset + begin * clock.seconds_per_step,
            offset + end * clock.seconds_per_step,
            written.tokens[first:stop],
            written,
            times=tuple(offset + time for time in written.times[first:stop]),
        )

    if not pairs:
        end = int(frames * clock.seconds_per_frame / clock.seconds_per_step)
        stamps = [clock.steps(token) for token, is_time in zip(tokens, times, strict=True) if is_time]
        if stamps and stamps[-1]:
            end = stamps[-1]
        return [segment(0, len(tokens), 0, end)], frames
    closed = times[-2:] == [False, True]  # one timestamp at the end: nothing is said behind it
    ends = [*pairs, len(tokens)] if closed else [*pairs[:-1], pairs[-1] + 1]
    found, last = [], 0
    for place, stop in enumerate(ends):
        part = tokens[last:stop]
        final = part[-1] if closed or place < len(ends) - 1 else part[-2]
        found.append(segment(last, stop, clock.steps(part[0]), clock.steps(final)))
        last = stop
    return found, frames if closed else clock.steps(tokens[last - 2]) * clock.frames_per_step
