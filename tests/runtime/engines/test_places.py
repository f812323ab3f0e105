"""Sources that come and go, side by side: what is in a place, and how much memory that takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.engines.in_place.places import LENGTH_STEP, SourcePlaces
from edgellm.engines.in_place.unequal_rows import rows_for_each
from edgellm.package.manifest import CrossCacheLayout

LAYOUT = CrossCacheLayout(num_layers=1, num_heads=2, head_dim=4, dtype="float32")
NAMES = [past for _, past in LAYOUT.names()]


def tensors(number: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {name: rng.normal(size=(1, 2, length, 4)).astype(np.float32) for name in NAMES}


STEPS = st.lists(st.tuples(st.integers(1, 130), st.lists(st.integers(0, 9), min_size=1, max_size=9)), max_size=8)


@given(steps=STEPS)
def test_places_hold_what_is_wanted_and_zeros_behind(steps: list[tuple[int, list[int]]]) -> None:
    places, known = SourcePlaces(LAYOUT), {}
    for number, (length, chosen) in enumerate(steps):
        known[number] = tensors(number, length)
        places.append(number, known[number])
        wanted = [places.held[place % len(places.held)] for place in chosen]
        places.arrange(wanted)
        assert places.held == wanted
        every = range(len(wanted))
        for name, whole in places.tensors(every).items():
            for place, source in enumerate(wanted):
                expected = known[source][name][0]
                np.testing.assert_array_equal(whole[place, :, : expected.shape[1]], expected)
                assert not whole[place, :, expected.shape[1] :].any()
        lengths = [known[source][NAMES[0]].shape[2] for source in wanted]
        assert places.mask(every).sum(1).tolist() == lengths
        rounded = -(-max(lengths) // LENGTH_STEP) * LENGTH_STEP
        assert places.nbytes < 4 * len(wanted) * 2 * rounded * LAYOUT.bytes_per_token()


def test_a_place_that_is_left_is_taken_by_the_last_one_alone() -> None:
    places = SourcePlaces(LAYOUT)
    for number in range(4):
        places.append(number, tensors(number, 20))
    before = places.tensors(range(3))[NAMES[0]]
    places.arrange([0, 3, 2])
    assert np.shares_memory(before, places.tensors(range(3))[NAMES[0]])
    assert places._parents([2, 0, 3]) == [2, 0, 1]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [("a", 1), ("ab", 1), ("aa", 2), ("aabb", 2), ("aaaabb", 2), ("aaabbb", 3), ("aaab", 1), ("abab", 1), ("aaaa", 4)],
)
def test_rows_for_each_source(sources: str, expected: int) -> None:
    assert rows_for_each(sources) == expected
