"""Config dataclasses from plain values."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

import metarl
from metarl.experiment.options import build


@dataclass(frozen=True)
class Inner:
    radius: float = 0.1


@dataclass(frozen=True)
class Outer:
    count: int
    rate: float = 0.5
    layers: tuple[int, ...] = (64, 64)
    pair: tuple[str, float] = ("a", 1.0)
    kind: Literal["trpo", "ppo"] = "trpo"
    limit: float | None = None
    flag: bool = False
    inner: Inner = field(default_factory=Inner)
    more: dict[str, Any] = field(default_factory=dict)


def test_plain_values_become_what_the_fields_say():
    values = {
        "count": 3,
        "rate": 1,
        "layers": [1, 2],
        "pair": ["b", 2],
        "kind": "ppo",
        "limit": 2,
        "flag": True,
        "inner": {"radius": 1},
        "more": {"x": [1]},
    }
    built = build(Outer, values, "it")
    assert built == Outer(3, 1.0, (1, 2), ("b", 2.0), "ppo", 2.0, True, Inner(1.0), {"x": [1]})
    assert [type(built.rate), type(built.limit), type(built.inner.radius)] == [float] * 3
    assert build(Outer, {"count": 1, "limit": None}, "it") == Outer(1)


def test_nested_options_keep_the_rest_of_their_default():
    @dataclass(frozen=True)
    class Region:
        max_kl: float = 0.01
        damping: float = 1e-5

    @dataclass(frozen=True)
    class Outermost:
        region: Region = field(default_factory=lambda: Region(damping=0.5))
        perhaps: Region | None = None

    default = Outermost(Region(0.3, 0.4), Region(0.5, 0.6))
    built = build(Outermost, {"region": {"max_kl": 0.02}, "perhaps": {"damping": 1}}, "it", default)
    assert built == Outermost(Region(0.02, 0.4), Region(0.5, 1.0))
    assert build(Outermost, {"region": {"max_kl": 0.02}}, "it") == Outermost(Region(0.02, 0.5))
    assert build(Outermost, {"perhaps": {"damping": 1}}, "it") == Outermost(perhaps=Region(damping=1.0))


def test_the_rest_comes_from_the_default():
    assert build(Outer, {"flag": True}, "it", default=Outer(7, kind="ppo")) == Outer(7, kind="ppo", flag=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "'count' is missing"),
        ({"count": True}, "'count': want int"),
        ({"count": 1.5}, "'count': want int"),
        ({"count": 1, "rate": "1"}, "'rate': want float"),
        ({"count": 1, "layers": [1, "x"]}, "'layers'"),
        ({"count": 1, "layers": 3}, "'layers'"),
        ({"count": 1, "pair": ["b"]}, "'pair'"),
        ({"count": 1, "kind": "sac"}, "'kind'"),
        ({"count": 1, "limit": "low"}, "'limit'"),
        ({"count": 1, "flag": 1}, "'flag': want bool"),
        ({"count": 1, "inner": 3}, "'inner'"),
        ({"count": 1, "inner": {"radios": 3}}, "no option 'radios'; did you mean radius"),
        ({"count": 1, "more": [3]}, "'more'"),
        ({"cuont": 1}, "no option 'cuont'; did you mean count"),
    ],
)
def test_what_does_not_fit_is_named(wrong: dict, message: str):
    with pytest.raises(metarl.UsageError, match=message):
        build(Outer, wrong, "it")
