"""Stop strings as OpenAI has them: the text ends before them."""

from __future__ import annotations

from collections.abc import Sequence


class StopCut:
    """The text of one sequence, piece by piece, up to the stop string that is complete first. What may be the beginning
    of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """The text that is certain now."""
        if self.found or not self._stops:
            return "" if self.found else text
        text = self._held + text
        places = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stops if stop in text]
        if places:
            self.found, self._held = True, ""
            _, start = min(places)
            return text[:start]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of a text that is a beginning of `stop`, and not all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
