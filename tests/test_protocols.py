"""The protocols by name: how many views, in which order, of what."""

from dataclasses import replace

import pytest

from twostream.clip import InputSpec
from twostream.data.dataset import View, plan_views
from twostream.errors import UsageError
from twostream.evaluation.protocols import PROTOCOLS, Protocol, advice, get_protocol

SEGMENTS = InputSpec()
STRIDED = InputSpec(sampling="strided", steps=5, snippets=5, stride=(5, 15))
SNIPPETS = InputSpec(sampling="snippets", snippets=3, stride=(1, 10), flow_offset=0)


def views_of(protocol: Protocol, spec: InputSpec) -> tuple[View, ...]:
    return plan_views(spec, steps=protocol.steps, space=protocol.space, flips=protocol.flips)


@pytest.mark.parametrize(
    ("name", "spec", "count"),
    [
        ("1-view", SEGMENTS, 1),
        ("1-view", STRIDED, 1),
        ("1-view", SNIPPETS, 1),
        ("25-step", SEGMENTS, 50),
        ("25-step", STRIDED, 2),
        ("25-step", SNIPPETS, 50),
        ("10-step", SEGMENTS, 10),
        ("10-step", STRIDED, 1),
        ("25x10", SEGMENTS, 250),
        ("25x10", STRIDED, 10),
        ("10x3", SEGMENTS, 30),
        ("10x3", STRIDED, 3),
    ],
)
def test_number_of_views(name: str, spec: InputSpec, count: int) -> None:
    assert len(views_of(get_protocol(name), spec)) == count


def test_views_are_ordered_by_time_then_crop_then_mirror_image() -> None:
    views = views_of(get_protocol("25x10"), SEGMENTS)
    assert views[:3] == (View(0, 0, False), View(0, 0, True), View(0, 1, False))
    assert views[10] == View(1, 0, False)
    assert views[-1] == View(24, 4, True)
    assert [((v.position * 5) + v.crop) * 2 + v.flip for v in views] == list(range(250))


def test_flips_can_be_switched_off_for_classes_that_a_mirror_would_change() -> None:
    views = views_of(replace(get_protocol("25x10"), flips=False), SEGMENTS)
    assert len(views) == 125
    assert not any(v.flip for v in views)


def test_the_papers_order_of_softmax_and_mean() -> None:
    assert {name: protocol.merge for name, protocol in PROTOCOLS.items()} == {
        "1-view": "logits",
        "25-step": "logits",
        "released_code": "logits",
        "25x10": "logits",
        "10-step": "logits",
        "10x3": "softmax",
    }
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())


def test_an_unknown_protocol_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match="no protocol is called '25'; there are 1-view, 25-step, released_code, 10-step, 25x10"
    ):
        get_protocol("25")


def test_whole_frames_are_not_for_networks_of_small_crops() -> None:
    assert advice("25-step", 224) is None
    assert advice("25x10", 96) is None
    assert "a network of 96 px crops has not learned to see; where" in str(advice("25-step", 96))
    assert "--protocol 25x10" in str(advice("10-step", 112))
