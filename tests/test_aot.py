"""What whole training runs launch on devices that are not here; `scripts/test-aot.sh` installs the compilers for it."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import launches, traffic
from benchmarks.launches import deepest

h200 = pytest.mark.skipif(not launches.available("h200"), reason="XLA's CUDA compiler is not installed: scripts/test-aot.sh")
tpu = pytest.mark.skipif(not launches.available("v5e:2x2"), reason="libtpu is not installed: scripts/test-aot.sh")


@pytest.fixture(scope="module")
def for_h200():
    """The compiled text of each run of 16 seeds, and its loops."""
    texts = {name: launches.compile_seeds("h200", program(), 16).as_text() for name, program in launches.PROGRAMS.items()}
    return {algorithm_of(name): (text, launches.loops(text)) for name, text in texts.items()}


@h200
def test_an_iteration_of_dqn_is_thirty_kernels(for_h200):
    assert deepest(for_h200["DQN"][1], trips=64) <= 30


@h200
def test_storing_bfloat16_saves_a_third_of_the_traffic_of_dqn_without_another_kernel(for_h200):
    """1,757 and 1,205 KB for each seed and iteration."""
    exact, half = for_h200["DQN"][0], launches.compile_seeds("h200", launches.dqn(dtype="bfloat16"), 16).as_text()
    assert deepest(launches.loops(half), trips=64) <= 30
    assert traffic.bytes_of_loop(exact, trips=64) <= 16 * 1_760_000
    assert traffic.bytes_of_loop(half, trips=64) <= 16 * 1_210_000


@h200
def test_traffic_is_what_a_loop_of_known_size_reads_and_writes():
    """One kernel copies the sum into the results, another adds a row to it: 5 KB. All three read the counter, one writes it."""

    def sums(table):
        return jax.lax.scan(lambda total, row: (total + row, total), jnp.zeros(256), table)

    text = launches.compile_for("h200", lambda tables: jax.vmap(sums)(tables), jnp.zeros((1, 77, 256))).as_text()
    counted = traffic.bytes_of_loop(text, trips=77)
    assert 5 * 1024 <= counted <= 5 * 1024 + 4 * 4


@h200
def test_a_rollout_step_of_reinforce_is_eight_kernels_and_an_iteration_three_hundred(for_h200):
    loops = for_h200["REINFORCE"][1]
    assert deepest(loops, trips=32) <= 8
    assert deepest(loops, trips=2) <= 300


@h200
def test_a_rollout_step_of_ppo_is_eight_kernels_and_an_iteration_two_thousand(for_h200):
    loops = for_h200["PPO"][1]
    assert deepest(loops, trips=128) <= 8
    assert deepest(loops, trips=10) <= 2000


@h200
def test_a_rollout_step_of_pqn_is_thirteen_kernels_and_an_iteration_two_and_a_half_thousand(for_h200):
    loops = for_h200["PQN"][1]
    assert deepest(loops, trips=64) <= 13
    assert deepest(loops, trips=10) <= 2450


@h200
def test_an_iteration_of_sac_is_seventy_kernels(for_h200):
    assert deepest(for_h200["SAC"][1], trips=64) <= 70


@h200
def test_two_steps_and_two_updates_of_td3_are_a_hundred_and_thirty_kernels(for_h200):
    assert deepest([loop for loop in for_h200["TD3"][1] if loop["depth"] == 2], trips=32) <= 130


@h200
def test_nothing_waits_for_the_host(for_h200):
    for text, loops in for_h200.values():
        assert sum(loop["syncs"] for loop in loops) == 0
        assert " conditional(" not in text
        assert not [target for target in re.findall(r'custom_call_target="([^"]+)"', text) if "callback" in target]


@h200
def test_returns_of_a_short_rollout_are_two_kernels():
    x = jax.ShapeDtypeStruct((32, 2048), np.float32)
    assert launches.kernels_of(launches.lambda_returns, x, x, x, x) <= 2
    assert launches.kernels_of(launches.advantages, x, x, x, x) <= 2


@tpu
@pytest.mark.parametrize("name", launches.PROGRAMS)
def test_a_run_of_64_seeds_compiles_for_four_tpus_that_never_speak_to_each_other(name):
    text = launches.compile_seeds("v5e:2x2", launches.PROGRAMS[name](), 64).as_text()
    assert "num_partitions=4" in text
    assert launches.collectives(text) == []
    assert not re.search(r"\b(callback|send|recv|infeed|outfeed|conditional)\(", text)


# How often devices speak to each other in a run of one agent on several: in every gradient step, and in every logging interval.
# By the number of loops around it. PPO also averages the advantages that it normalises, and their squares. An iteration of TD3
# has three gradient steps, in no loop of their own. OpenAI-ES also gathers the returns of the population, by an all-reduce on a
# TPU. What is outside of all loops is the mean of a constant. docs/devices.md has these numbers too.
EXPECTED = {
    "DQN": {3: 1, 1: 2},
    "REINFORCE": {3: 1, 1: 2, 0: 1},
    "PPO": {4: 3, 1: 2, 0: 1},
    "PQN": {4: 1, 1: 2},
    "SAC": {3: 1, 1: 2},
    "TD3": {3: 3, 1: 2},
    "OpenAI-ES": {2: 2, 1: 2},
    "A2C": {3: 1, 1: 2},
    "REINFORCE with the baseline 'mean'": {2: 2, 1: 2},
    "DQN with prioritized replay": {3: 2, 1: 2},
    "PPO with normalised observations": {4: 3, 2: 3, 1: 2, 0: 1},
    "PPO with normalised rewards": {4: 3, 2: 1, 1: 2, 0: 1},
    "CrossQ": {3: 11, 1: 2},
}
IN_SHARDS = launches.PROGRAMS | launches.ALSO_IN_SHARDS


def groups_of(text):
    """Replica groups as lists of devices: either listed, `{{0,1},{2,3}}`, or an array, `[2,2]<=[4]`, perhaps transposed."""
    array = re.fullmatch(r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if array is None:
        return [[int(device) for device in group.split(",")] for group in re.findall(r"\{(\d[\d,]*)\}", text)]
    shape = [int(size) for size in array[3].split(",")]
    devices = np.arange(np.prod(shape)).reshape(shape)
    if array[4]:
        devices = devices.transpose([int(axis) for axis in array[4].split(",")])
    return devices.reshape(int(array[1]), int(array[2])).tolist()


@pytest.mark.parametrize(
    ("text", "groups"),
    [("{{0,1},{2,3}}", [[0, 1], [2, 3]]), ("[2,2]<=[4]", [[0, 1], [2, 3]]), ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]), ("{}", [])],
)
def test_both_forms_of_groups_are_read(text, groups):
    assert groups_of(text) == groups


def check_collectives(device, name, seeds, num_shards):
    """A run has the expected collectives, each among the devices of a seed, and no other device."""
    text = launches.compile_seeds(device, IN_SHARDS[name](num_shards=num_shards), seeds, num_shards).as_text()
    found = launches.collectives_of_loops(text)
    kinds = {"all-reduce", "all-gather"} if name == "PPO with normalised observations" else {"all-reduce"}
    assert {kind for _, kind, _ in found} == kinds
    assert Counter(depth for depth, *_ in found) == EXPECTED[algorithm_of(name)]
    devices_of_seeds = np.arange(seeds * num_shards).reshape(seeds, num_shards).tolist()
    for *_, groups in found:
        assert groups_of(groups) == devices_of_seeds


def algorithm_of(name):
    return name.split(",")[0]


QUICK = {"DQN", "PPO"}


def test_the_quick_ones_are_programs_and_the_counts_are_of_all():
    assert set(EXPECTED) == {algorithm_of(name) for name in IN_SHARDS} > QUICK


@tpu
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if algorithm_of(name) in QUICK else pytest.mark.slow, id=algorithm_of(name))
        for name in IN_SHARDS
    ],
)
def test_four_agents_on_four_tpus_each_have_the_expected_collectives_and_only_among_themselves(name):
    check_collectives("v5e:4x4", name, seeds=4, num_shards=4)


@tpu
def test_one_agent_on_256_tpus_averages_once_a_gradient_step_over_all_of_them():
    check_collectives("v5e:16x16", next(iter(launches.PROGRAMS)), seeds=1, num_shards=256)


@tpu
@pytest.mark.slow
def test_256_seeds_on_256_tpus_never_speak_to_each_other():
    compiled = launches.compile_seeds("v5e:16x16", launches.dqn(), 1024)
    assert "num_partitions=256" in compiled.as_text()
    assert launches.collectives(compiled.as_text()) == []


@tpu
def test_a_collective_would_be_seen():
    """The check above can fail: a mean over the seeds needs one."""
    seeds = jax.ShapeDtypeStruct((64, 8), np.float32)
    text = launches.compile_for("v5e:2x2", lambda x: x - x.mean(axis=0, keepdims=True), seeds).as_text()
    assert launches.collectives(text) == ["all-reduce"]
