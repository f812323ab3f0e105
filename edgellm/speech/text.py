"""Tokens with timestamps as pieces of text with times, as transformers' pipeline has them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from edgellm.speech.segments import Clock

Span = tuple[float | None, float | None]  # seconds; None: no timestamp


@dataclass
class _Times:
    """Follows timestamps, which begin anew with each window. `window`: of one, in seconds."""

    clock: Clock
    window: float
    latest: float = 0.0
    before: float = 0.0
    earlier: float = 0.0  # of all windows that are done

    def of(self, tokens: Sequence[int], place: int) -> float:
        """The seconds of the timestamp at `place`."""
        time = self.clock.steps(tokens[place]) * self.clock.seconds_per_step
        if time < self.latest:  # of the next window
            both = all(self.clock.is_time(token) for token in tokens[max(0, place - 2) : place])
            if place >= 2 and not both:
                self.earlier += self.window
            else:
                self.latest = self.before
                self.earlier += self.before
        self.before, self.latest = self.latest, time
        return round(time + self.earlier, 2)


@dataclass
class _Cut:
    parts: list[tuple[Span, list[int]]] = field(default_factory=list)
    start: float | None = None
    places: list[int] = field(default_factory=list)

    def time(self, time: float) -> None:
        if self.start is None:
            self.start = time
        elif time != self.start:
            self.parts.append(((self.start, time), self.places))
            self.start, self.places = None, []


def pieces(
    tokens: Sequence[int], special: Collection[int], clock: Clock, window: float
) -> list[tuple[Span, list[int]]]:
    """The places of the text tokens between timestamps, and these. Text without a timestamp behind it has None there.
    `special`: tokens that are no text. `window`: seconds of one."""
    cut, times = _Cut(), _Times(clock, window)
    for place, token in enumerate(tokens):
        if token in special:
            continue
        if clock.is_time(token):
            cut.time(times.of(tokens, place))
        else:
            cut.places.append(place)
    if cut.places:
        cut.parts.append(((cut.start, None), cut.places))
    return cut.parts
