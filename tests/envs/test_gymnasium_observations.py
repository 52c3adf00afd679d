"""Observations of every Gymnasium space, beside Gymnasium's own `flatten`, and what is refused."""

import re
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, OneOf, Sequence, Text, Tuple
from plain import Views

from metarl import UsageError
from metarl.envs.gymnasium_answers import WrongAnswer
from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.envs.gymnasium_observations import ObservationCodec

FLAT = {
    "vector": Box(-1, 1, (3,), np.float32),
    "number": Box(-1, 1, (), np.float64),
    "matrix": Box(-1, 1, (2, 3), np.float64),
    "whole numbers": Box(-5, 5, (4,), np.int64),
    "memory": Box(0, 255, (128,), np.uint8),
    "board": Box(0, 2, (6, 7), np.uint8),
    "stack of memories": Box(0, 255, (4, 128), np.uint8),
    "discrete": Discrete(4),
    "discrete from -2": Discrete(4, start=-2),
    "multi-discrete": MultiDiscrete([3, 2, 4]),
    "multi-discrete [2, 2]": MultiDiscrete([[3, 2], [4, 5]], start=[[0, 1], [-2, 0]]),
    "bits": MultiBinary(5),
    "bits [2, 3]": MultiBinary((2, 3)),
    "tuple": Tuple((Discrete(32), Discrete(11), Discrete(2))),
    "goal": Dict(observation=Box(-1, 1, (3,)), desired_goal=Box(-1, 1, (2,)), achieved_goal=Box(-1, 1, (2,))),
    "nested": Dict(b=Tuple((Discrete(2), Box(-1, 1, (2, 2)))), a=Dict(x=MultiBinary(2), y=Box(0, 9, (1,), np.int32))),
}


@pytest.mark.parametrize("name", FLAT)
def test_without_pictures_it_is_gymnasiums_flat_vector(name):
    space = FLAT[name]
    codec, flat = ObservationCodec(space, "F"), gym.spaces.flatten_space(space)
    assert codec.space == Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32)
    space.seed(0)
    for _ in range(5):
        observation = space.sample()
        expected = gym.spaces.flatten(space, observation).astype(np.float32)
        assert np.array_equal(codec.encode(observation), expected)


def counting(*shape):
    return (np.arange(np.prod(shape)) % 256).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "expected", "pixel"),
    [
        ((84, 84, 3), (84, 84, 3), lambda o: o[5, 7, 2]),
        ((7, 7, 3), (7, 7, 3), lambda o: o[5, 6, 2]),
        ((84, 84), (84, 84, 1), lambda o: o[5, 7]),
        ((3, 64, 48), (64, 48, 3), lambda o: o[2, 5, 7]),
        ((1, 84, 84), (84, 84, 1), lambda o: o[0, 5, 7]),
        ((4, 84, 84), (84, 84, 4), lambda o: o[3, 5, 7]),
        ((12, 84, 84), (84, 84, 12), lambda o: o[11, 5, 7]),
        ((3, 4, 4), (3, 4, 4), lambda o: o[2, 3, 3]),
        ((4, 84, 84, 3), (84, 84, 12), lambda o: o[3, 5, 7, 2]),
        ((4, 3, 84, 80), (84, 80, 12), lambda o: o[3, 2, 5, 7]),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else "",
)
def test_pictures_have_their_channels_last(shape, expected, pixel):
    codec, original = ObservationCodec(Box(0, 255, shape, np.uint8), "F"), counting(*shape)
    assert codec.space == Box(0, 255, expected, np.uint8)
    encoded = codec.encode(original)
    assert (encoded.shape, encoded.dtype) == (expected, np.uint8)
    row, column = min(5, expected[0] - 1), min(7, expected[1] - 1)
    assert encoded[row, column, -1] == pixel(original)
    assert np.array_equal(np.sort(encoded.ravel()), np.sort(original.ravel()))


def test_pictures_beside_other_things_are_a_dictionary_of_leaves():
    space = Dict(
        hand=Dict(camera=Box(0, 255, (8, 8, 3), np.uint8), force=Box(-1, 1, (2, 2))),
        mode=Discrete(3),
        pair=Tuple((Box(0, 255, (8, 9), np.uint8), Discrete(2))),
    )
    codec = ObservationCodec(space, "F")
    assert {name: (box.shape, box.dtype.name) for name, box in codec.space.spaces.items()} == {
        "hand.camera": ((8, 8, 3), "uint8"),
        "hand.force": ((4,), "float32"),
        "mode": ((3,), "float32"),
        "pair.0": ((8, 9, 1), "uint8"),
        "pair.1": ((2,), "float32"),
    }
    space.seed(3)
    observation = space.sample()
    encoded = codec.encode(observation)
    assert np.array_equal(encoded["hand.camera"], observation["hand"]["camera"])
    assert np.array_equal(encoded["hand.force"], observation["hand"]["force"].ravel())
    assert np.array_equal(encoded["mode"], np.eye(3)[observation["mode"]])
    assert np.array_equal(encoded["pair.0"][..., 0], observation["pair"][0])
    only = ObservationCodec(Dict(camera=space["hand"]["camera"]), "F")
    assert only.space == Box(0, 255, (8, 8, 3), np.uint8)
    camera = observation["hand"]["camera"]
    assert np.array_equal(only.encode({"camera": camera}), camera)


class Words(gym.Space):
    """Like the missions of a maze: a space that Gymnasium does not know."""


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Dict(a=Box(-1, 1, (2,)), mission=Words()), "'mission' .* kind Words,.*FilterObservation(env, ['a'])"),
        (Dict(a=Discrete(2), b=Text(3)), "'b' .* kind Text,.*FilterObservation(env, ['a'])"),
        (Dict(a=Discrete(2), b=Tuple((Discrete(2), Sequence(Discrete(3))))), "'b.1' .* kind Sequence,"),
        (Graph(Box(-1, 1, (2,)), None), "the observations are of the kind Graph,.*TransformObservation"),
        (OneOf((Discrete(2), Box(-1, 1, (2,)))), "kind OneOf"),
        (Dict(m=Text(3)), "kind Text,.*TransformObservation"),
        (Dict(), "is empty"),
        (Dict({"a.b": Box(0, 255, (9, 9), np.uint8), "a": Dict(b=Discrete(2))}), "the same path among a"),
        (Discrete(2**20), "one of 1048576 choices"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_network_reads_is_refused_in_a_line_with_a_way_out(space, message):
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(UsageError, match=pattern) as caught:
        ObservationCodec(space, "F")
    assert "\n" not in str(caught.value)


VECTOR, PAIR = Box(-1, 1, (3,)), Dict(a=Box(-1, 1, (2,)), b=Discrete(3))


@pytest.mark.parametrize(
    ("space", "observation", "message"),
    [
        (VECTOR, np.zeros(1, np.float32), "float32 [1] as observation, but"),
        (VECTOR, np.zeros((3, 1), np.float32), "float32 [3, 1]"),
        (VECTOR, 0.5, "returned 0.5 as observation"),
        (VECTOR, None, "returned None"),
        (VECTOR, [[1.0], [2.0, 3.0]], "a list of 2"),
        (VECTOR, np.zeros(3, complex), "complex128 [3]"),
        (VECTOR, np.array(["a", "b", "c"]), "<U1 [3]"),
        (VECTOR, (np.zeros(3), {}), "a tuple of 2"),
        (PAIR, {"a": np.zeros(2)}, "a dict of 'a' as observation, but its observation_space is a Dict of 'a', 'b'"),
        (PAIR, {"a": np.zeros(2), "b": 1, "c": 0}, "a dict of 'a', 'b', 'c'"),
        (PAIR, np.zeros(2), "an array of float64 [2]"),
        (PAIR, {"a": np.zeros(3), "b": 1}, "as observation['a']"),
        (PAIR, {"a": np.zeros(2), "b": 3}, "returned 3 as observation['b'], which is not in Discrete(3)"),
        (PAIR, {"a": np.zeros(2), "b": -1}, "not in Discrete(3)"),
        (PAIR, {"a": np.zeros(2), "b": 1.0}, "returned 1.0"),
        (
            Tuple((Discrete(2), Discrete(2))),
            (1,),
            "a tuple of 1 as observation, but its observation_space is a Tuple of 2",
        ),
        (MultiDiscrete([2, 3]), np.array([1, 3]), "not in MultiDiscrete"),
        (MultiBinary(2), np.array([0, 2]), "not in MultiBinary"),
        (Box(0, 255, (4, 4, 3), np.uint8), np.full((4, 4, 3), 0.5), "float64 [4, 4, 3]"),
        (Box(0, 255, (4, 4, 3), np.uint8), np.full((4, 4, 3), 256), "outside 0 … 255"),
        (Box(0, 255, (4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), "uint8 [4, 4]"),
    ],
)
def test_what_was_not_promised_is_refused_instead_of_broadcast(space, observation, message):
    with pytest.raises(WrongAnswer, match=re.escape(message)):
        ObservationCodec(space, "F").encode(observation)


@pytest.mark.parametrize(
    "observation",
    [[1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3]), torch.tensor([1.0, 2.0, 3.0]), np.float64([1, 2, 3])],
)
def test_numbers_of_the_right_shape_are_taken_from_anything(observation):
    assert ObservationCodec(Box(-9, 9, (3,)), "F").encode(observation).tolist() == [1, 2, 3]


def test_whole_numbers_that_float32_does_not_tell_apart_are_warned_of_once():
    codec = ObservationCodec(Box(0, 2**40, (2,), np.int64), "Stamps-v0")
    assert codec.encode(np.array([2**24, 0])).tolist() == [2**24, 0]
    with pytest.warns(UserWarning, match=r"Stamps-v0: observation holds the whole number 16777217"):
        codec.encode(np.array([2**24 + 1, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.encode(np.array([2**30, 0]))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_pictures_stay_bytes_on_their_way(vectorization):
    distribution = GymnasiumDistribution(
        "Views-v0",
        Views,
        parameters={"offset": Box(0, 9, (), np.int64)},
        apply=lambda env, task: setattr(env.unwrapped, "offset", task["offset"]),
        horizon=5,
        vectorization=vectorization,
        workers=2,
    )
    env = distribution.make_env(3)
    env.set_tasks(distribution.sample(3, seed=0))
    offsets = env.tasks.parameters["offset"]
    observations, _ = env.reset(seed=0)
    for t in (1, 2, 3):
        observations, _, terminated, _, info = env.step(torch.zeros(3, dtype=torch.int64))
        shown = 0 if t == 3 else t
        for found, time in ((observations, shown), (info["final_obs"], t)):
            assert found["camera"].dtype == torch.uint8
            assert torch.equal(
                found["camera"], (10 * time + offsets).to(torch.uint8)[:, None, None, None].expand(3, 9, 8, 1)
            )
            assert torch.equal(found["clock"], torch.full((3, 1), float(time)))
        assert bool(terminated.all()) == (t == 3)
    env.close()
