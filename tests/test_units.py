import math

import pytest

from twostream.units import bytes_text, seconds_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45.2, "45 s"),
        (99.4, "99 s"),
        (99.6, "1 min 40 s"),
        (200, "3 min 20 s"),
        (5999, "99 min 59 s"),
        (6000, "1 h 40 min"),
        (18600, "5 h 10 min"),
        (math.nan, "unknown"),
        (math.inf, "unknown"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (3_400_000, "3.4 MB"),
        (2.5e9, "2.5 GB"),
        (7.2e12, "7.2 TB"),
        (7.2e15, "7200.0 TB"),
    ],
)
def test_sizes_read_as_people_say_them(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_what_cannot_be_told_is_unknown() -> None:
    assert bytes_text(float("nan")) == seconds_text(float("nan")) == "unknown"
