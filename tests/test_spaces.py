"""Spaces compare by value, are hashable, and describe what they hold."""

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import spaces
from jaxrl.types import Box, Dict, Discrete, MultiDiscrete

EQUAL = [
    lambda: Discrete(3),
    lambda: MultiDiscrete((3, 2)),
    lambda: Box(-1, [1, 2], (2,)),
    lambda: Box(0, 255, (4, 4, 3), np.uint8),
    lambda: Dict({"b": Box(-1, 1, (2,)), "a": Discrete(3)}),
    lambda: jaxrl.make("PointMass").observation_space,
    lambda: jaxrl.make("CartPole-v1").observation_space,
]


@pytest.mark.parametrize("make", EQUAL)
def test_equal_spaces_are_equal_and_hash_alike(make):
    assert make() == make()
    assert hash(make()) == hash(make())


def test_spaces_that_differ_in_anything_are_different():
    different = [
        Discrete(2), Discrete(3), MultiDiscrete((2,)), MultiDiscrete((3,)), Box(-1, 1, (2,)), Box(-1, 1, (3,)), Box(-1, 2, (2,)),
        Box(-2, 1, (2,)), Box(-1, 1, (2,), np.float16), Dict({"a": Discrete(2)}), Dict({"b": Discrete(2)}), Dict({}),
    ]  # fmt: skip
    for i, a in enumerate(different):
        for j, b in enumerate(different):
            assert (a == b) == (i == j), (a, b)


def test_a_dict_is_the_same_in_any_order():
    assert Dict({"a": Discrete(2), "b": Discrete(3)}) == Dict({"b": Discrete(3), "a": Discrete(2)})
    assert str(Dict({"b": Discrete(3), "a": MultiDiscrete((2, 4))})) == "Dict(a: MultiDiscrete(2, 4), b: Discrete(3))"


def test_spec_has_the_structure_of_the_elements():
    space = Dict({"image": Box(0, 1, (2, 2)), "inner": Dict({"n": Discrete(3)})})
    assert spaces.spec(space) == {
        "image": jax.ShapeDtypeStruct((2, 2), np.float32),
        "inner": {"n": jax.ShapeDtypeStruct((), np.int32)},
    }


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Discrete(0), ValueError, "Discrete: n must be at least 1, got 0"),
        (lambda: Discrete(2.5), TypeError, "Discrete: n must be an int, got 2.5"),
        (lambda: MultiDiscrete(()), ValueError, "MultiDiscrete: nvec must have an entry"),
        (lambda: MultiDiscrete((3, 0)), ValueError, r"MultiDiscrete: nvec\[1\] must be at least 1, got 0"),
        (lambda: MultiDiscrete((2.7, 3)), TypeError, r"MultiDiscrete: nvec\[0\] must be an int, got 2.7"),
        (lambda: Box(1, [2, 0], (2,)), ValueError, "Box: low must be at most high"),
        (lambda: Box(np.nan, 1, ()), ValueError, "Box: low must be at most high, got low nan"),
        (lambda: Box(0, [255, 300], (2,), np.uint8), ValueError, r"Box: high must be integers of uint8.* got \[255, 300\]"),
        (lambda: Box(-1, 1, (2,), np.uint8), ValueError, "Box: low must be integers of uint8, from 0 to 255, .* got -1"),
        (lambda: Box(0.5, 2, (2,), np.int32), ValueError, "Box: low must be integers of int32.* got 0.5"),
        (lambda: Box(0, np.nan, (2,), np.int32), ValueError, "Box: high must be integers of int32.* got nan"),
        (lambda: Box(-1, 1, 3), TypeError, "Box: shape must be a tuple of ints, got 3"),
    ],
)
def test_impossible_spaces_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64, np.uint64])
def test_infinite_bounds_of_integers_are_the_limits_of_the_dtype(dtype):
    limits = np.iinfo(dtype)
    bounded = Box(limits.min, limits.max, (2,), dtype)
    assert Box(-np.inf, np.inf, (2,), dtype) == bounded
    assert Box(np.array([-np.inf, limits.min]), np.array([limits.max, np.inf]), (2,), dtype) == bounded
    assert Box(0, [3, np.inf], (2,), dtype) == Box(0, np.array([3, limits.max], dtype), (2,), dtype)


def test_a_box_keeps_its_bounds_when_the_given_arrays_change():
    low, high = np.zeros(3, np.float32), np.ones(3, np.int32)
    boxes = [Box(low, high, (3,)), Box(low, high, (3,), np.int32)]
    before = [hash(box) for box in boxes]
    low[0], high[0] = 0.5, 2
    assert boxes == [Box(0, 1, (3,)), Box(0, 1, (3,), np.int32)]
    assert [hash(box) for box in boxes] == before


def test_sizes_from_numpy_become_ints():
    assert type(Discrete(np.int64(3)).n) is int
    assert MultiDiscrete(np.array([3, 2])) == MultiDiscrete((3, 2))


def test_an_entry_that_is_no_space_is_refused():
    with pytest.raises(TypeError, match="the entry 'x' must be a space"):
        Dict({"x": (3,)})


def test_the_mask_is_split_from_observations_and_from_their_space():
    space = Dict({"x": Discrete(3), "action_mask": Box(False, True, (4,), bool)})
    assert spaces.split_action_mask(space) == (Dict({"x": Discrete(3)}), space["action_mask"])
    assert spaces.split_action_mask({"x": 1, "action_mask": 2}) == ({"x": 1}, 2)
    assert spaces.split_action_mask(Discrete(3)) == (Discrete(3), None)
    assert (spaces.num_choices(Discrete(4)), spaces.num_choices(MultiDiscrete((3, 2)))) == (4, 5)
