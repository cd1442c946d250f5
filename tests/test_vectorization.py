"""`vectorize` over fake devices, in groups of all sizes, with and without padding."""

import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jaxrl
from jaxrl import vectorization
from jaxrl._src import device_memory as memory
from tests.devices import only_on_a_cpu
from tests.problems import countdown, dqn_learner, plain


@pytest.mark.parametrize("num", [1, 2, 5, 8])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_it_is_a_vmap_for_every_size(num, batch_size):
    x = {"a": jnp.arange(num * 2.0).reshape(num, 2), "key": jax.random.split(jax.random.key(0), num)}
    fn = lambda x: (jnp.sum(x["a"]) * 2, jax.random.uniform(x["key"]))
    for got, wanted in zip(jaxrl.vectorize(fn, batch_size=batch_size)(x), jax.vmap(fn)(x), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_seeds_over_devices_and_groups_equal_each_alone(two_devices, full_precision):
    learner = dqn_learner(countdown())
    keys = jax.random.split(jax.random.key(0), 3)
    train = lambda key: jaxrl.train(key, learner, 4)[0].agent.params
    spread = jaxrl.vectorize(train, devices=two_devices)(keys)
    alone = jax.jit(train)(keys[2])
    for x, y in zip(jax.tree.leaves(plain(spread)), jax.tree.leaves(plain(alone)), strict=True):
        np.testing.assert_allclose(x[2], y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num", [1, 2, 4])
def test_a_group_of_one_is_not_batched(num):
    """A `vmap`, also over one element, would turn the branch into a select and compute both sides."""
    assert _branches(num, batch_size=1)
    assert not _branches(8, batch_size=2)


@only_on_a_cpu("elsewhere all seeds run at once")
@pytest.mark.parametrize("num", [1, 2, 4])
def test_on_a_cpu_a_group_is_one_seed(num):
    assert _branches(num, batch_size=None)


def _branches(num, batch_size):
    """Whether the program for `num` seeds has a branch that depends on the seed."""
    fn = jaxrl.vectorize(lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), batch_size=batch_size)
    return " conditional(" in jax.jit(fn).lower(jnp.arange(float(num))).compile().as_text()


def test_on_one_device_no_iteration_is_traced_again():
    """`make_learner` has traced it already, for its checks; tracing again would take a third of a second."""
    before, after = _traces(jax.devices()[:1])
    assert 0 < before == after


def test_on_two_devices_iterations_are_traced_within_their_mesh(two_devices):
    """So the test above counts what it should."""
    before, after = _traces(two_devices)
    assert after > before


def _traces(devices):
    """How often an iteration had been traced when the learner was made, and after its training was traced."""
    traced = []
    env, agent, *_ = dqn_learner(countdown())
    counted = agent._replace(explore=lambda *args: traced.append(None) or agent.explore(*args))
    learner = jaxrl.make_learner(env, counted, num_envs=4, rollout_length=1)
    before = len(traced)
    keys = jax.random.split(jax.random.key(0), 4)
    jax.jit(jaxrl.vectorize(lambda key: jaxrl.train(key, learner, 2), devices=devices)).trace(keys)
    return before, len(traced)


def test_the_program_has_no_collective(two_devices):
    learner = dqn_learner(countdown())
    keys = jax.random.split(jax.random.key(0), 4)
    train = jaxrl.vectorize(lambda key: jaxrl.train(key, learner, 2)[0].agent.params, devices=two_devices)
    text = jax.jit(train).lower(keys).compile().as_text()
    assert "num_partitions=2" in text
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert collective not in text


def test_three_seeds_on_two_devices_run_the_program_of_four(two_devices):
    """Padding is added and cut off outside of the program: inside, the results would have to be gathered."""
    lengths = []

    def fn(x):
        lengths.append(None)
        return x + 1

    spread = jaxrl.vectorize(fn, devices=two_devices)
    spread(jnp.arange(4.0))
    traced = len(lengths)
    assert spread(jnp.arange(3.0)).tolist() == [1.0, 2.0, 3.0]
    assert len(lengths) == traced


@pytest.mark.parametrize(("total", "devices", "used"), [(16, 12, 8), (3, 2, 2), (2, 8, 2), (8, 8, 8), (9, 8, 5), (1, 4, 1)])
def test_no_device_waits_while_others_do_a_second_round(total, devices, used):
    assert vectorization.spread_over(total, range(devices)) == tuple(range(used))


def test_a_result_may_be_a_plain_number():
    numbers = jaxrl.vectorize(lambda x: (x, 3))(jnp.arange(8.0))[1]
    np.testing.assert_array_equal(numbers, np.full(8, 3))


@pytest.mark.parametrize(
    "outer", [jax.jit, jax.grad, lambda f: jax.jit(jax.grad(f)), lambda f: lambda x: jax.vmap(f)(x[None])[0]]
)
def test_what_it_closes_over_may_be_traced(outer):
    """By a `jit`, a derivative or a `vmap` around it, though none of its own arguments is traced."""
    numbers = jnp.arange(4.0)  # made here: under `jit` it would be traced too
    total = lambda rate: jnp.sum(jaxrl.vectorize(lambda x: rate * x)(numbers))
    assert float(outer(total)(jnp.float32(2.0))) in (12.0, 6.0)


def test_one_within_another_runs_on_each_of_its_devices(two_devices):
    inner = jaxrl.vectorize(lambda x: x**2, devices=two_devices)
    numbers = jnp.arange(15.0).reshape(3, 5)
    np.testing.assert_array_equal(jaxrl.vectorize(inner, devices=two_devices)(numbers), numbers**2)
    sharded = jaxrl.vectorize(lambda x: x, devices=two_devices, num_shards=2)
    with pytest.raises(ValueError, match="num_shards must be 1 within a function that is spread over devices"):
        jaxrl.vectorize(sharded, devices=two_devices)(numbers)


def test_a_traced_clock_is_shared_and_a_state_donated():
    learner = dqn_learner(countdown())
    states = jaxrl.vectorize(lambda key: learner.init(key, learner.agent.hparams))(jax.random.split(jax.random.key(0), 2))

    def chunk(states, clock):
        return jaxrl.vectorize(lambda state: jaxrl.advance(state, clock, learner, 2))(states)

    step = jax.jit(chunk, donate_argnums=0)
    states, _ = step(states, jnp.int32(5))
    states, metrics = step(states, jnp.int32(7))
    assert step._cache_size() == 1
    assert metrics["loss"].shape == (2, 2)


def test_states_are_replaced_in_place():
    """Beside the donated states there is one state in memory, and no second one of all; other arguments and results are free."""
    num, size = 8, 2**18
    states = jaxrl.types.LearnerState(jax.random.split(jax.random.key(0), num), jnp.ones((num, size)), *jnp.zeros((4, num)))
    scales, device = jnp.arange(float(num)), jax.devices()[:1]

    def fn(scale, state):
        agent = jax.lax.fori_loop(0, 3, lambda i, x: x.at[i].add(scale), state.agent)
        return {"sum": jnp.sum(agent), "state": state._replace(agent=agent), "scale": scale}

    compiled = jax.jit(jaxrl.vectorize(fn, devices=device), donate_argnums=1).lower(scales, states).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1.5 * 4 * size
    out = compiled(scales, states)
    expected = np.ones((num, size), np.float32)
    expected[:, :3] += np.arange(8.0)[:, None]
    np.testing.assert_array_equal(out["state"].agent, expected)
    np.testing.assert_array_equal(out["sum"], expected.sum(axis=1))
    np.testing.assert_array_equal(out["scale"], scales)
    longer = jaxrl.vectorize(lambda state: state._replace(agent=jnp.append(state.agent, 1.0)), devices=device)(out["state"])
    assert longer.agent.shape == (num, size + 1)  # the next state may be of another shape


def test_chosen_devices_are_used_and_by_default_all(two_devices):
    fn, x = lambda x: x + 1, jnp.arange(float(2 * jax.device_count()))
    for chosen, used in ((two_devices[1:], two_devices[1:]), (two_devices, two_devices), (None, jax.devices())):
        assert jaxrl.vectorize(fn, devices=chosen)(x).sharding.device_set == set(used)


def test_a_chosen_device_goes_before_the_default(two_devices):
    first, _ = two_devices
    for default in two_devices:
        with jax.default_device(default):
            assert jaxrl.vectorize(lambda x: x + 1, devices=[first])(np.arange(4.0, dtype=np.float32)).devices() == {first}


@pytest.mark.parametrize("batch_size", [None, "auto"])
@pytest.mark.parametrize("chosen", [[0], [1], [0, 1]])
def test_arguments_go_to_the_devices_that_run(chosen, batch_size, two_devices):
    """From whichever device they were placed on before."""
    x = jax.device_put({"a": jnp.arange(3.0), "key": jax.random.split(jax.random.key(0), 3)}, two_devices[1])
    fn = lambda x, y: (x["a"] * y, jax.random.uniform(x["key"]))
    out = jaxrl.vectorize(fn, batch_size=batch_size, devices=[two_devices[i] for i in chosen])(
        x, np.arange(3.0, dtype=np.float32)
    )
    if len(chosen) == 1:
        assert out[0].devices() == {two_devices[chosen[0]]}
    np.testing.assert_array_equal(out[0], [0.0, 1.0, 4.0])
    np.testing.assert_array_equal(out[1], jax.vmap(jax.random.uniform)(x["key"]))


def test_arguments_that_are_in_place_are_not_copied(monkeypatch, two_devices):
    moved, put = [], jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda x, sharding: moved.append(x) or put(x, sharding))
    double = jaxrl.vectorize(lambda x: 2 * x, devices=two_devices)
    first = double(jnp.arange(4.0))
    second = double(first)
    assert not moved
    np.testing.assert_array_equal(jaxrl.vectorize(lambda x: 2 * x, devices=two_devices[:1])(second), 8 * np.arange(4.0))
    assert len(moved) == 1


def test_shards_of_a_loaded_state_go_to_their_devices(two_devices):
    state = jaxrl.types.LearnerState(*jnp.arange(12.0).reshape(6, 1, 2))  # of one seed, in two shards
    loaded, scale = jax.device_put((state, jnp.full(1, 3.0)), two_devices[1])
    out = jaxrl.vectorize(lambda state, scale: jax.tree.map(lambda x: scale * x, state), num_shards=2)(loaded, scale)
    assert len(out.obs.devices()) == 2
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, 3 * y), out, state)


def test_an_array_of_this_process_becomes_part_of_one_of_all(monkeypatch):
    """`device_put` refuses devices of other processes."""
    monkeypatch.setattr(jax, "make_array_from_callback", lambda shape, sharding, part: (shape, part((slice(1, 3),))))
    x = jax.device_put(jnp.arange(4.0), jax.devices()[0])
    shape, part = vectorization._move(SimpleNamespace(is_fully_addressable=False), x)
    assert shape == (4,)
    np.testing.assert_array_equal(part, [1.0, 2.0])


@pytest.mark.parametrize("num", [1, 2])
def test_a_mesh_of_the_caller_makes_no_difference(num, two_devices):
    """Neither one that is set, nor one in the types of the arguments."""
    mesh = jax.make_mesh((2,), ("x",), devices=two_devices)
    x = jax.device_put(jnp.arange(4.0), NamedSharding(mesh, PartitionSpec("x")))
    double = jaxrl.vectorize(lambda x: 2 * x, devices=two_devices[:num])
    np.testing.assert_array_equal(double(x), 2 * np.arange(4.0))
    with jax.set_mesh(mesh):
        for given in (x, np.arange(4.0, dtype=np.float32)):
            np.testing.assert_array_equal(double(given), 2 * np.arange(4.0))
        np.testing.assert_array_equal(double(jnp.arange(3.0)), 2 * np.arange(3.0))


def test_auto_is_for_the_devices_of_this_process():
    with pytest.raises(ValueError, match="free memory of this process; for devices of several, give a number"):
        jaxrl.vectorize(lambda x: x, batch_size="auto", devices=[SimpleNamespace(process_index=1)])


@pytest.mark.parametrize("args", [(jnp.ones(2), jnp.ones(3)), (jnp.ones(()),), (jnp.ones((0, 2)),)])
def test_without_a_common_axis_it_is_an_error(args):
    with pytest.raises(ValueError, match="one common, non-empty leading axis"):
        jaxrl.vectorize(lambda *x: x)(*args)


def test_auto_takes_as_many_at_once_as_fit(monkeypatch):
    """Every element needs the same memory while it runs: with a quarter of what sixteen need, at most four run at once."""
    widths = []

    def fn(key):
        x = jax.random.normal(key, (512, 512))
        return jnp.sum(jnp.sort(x, axis=0) @ x)

    def remember(compiled):
        widths.append(compiled.memory_analysis().temp_size_in_bytes / 2**20)
        return memory_of(compiled)

    memory_of = memory.memory_of
    monkeypatch.setattr(vectorization, "_CPU_BATCH_SIZE", 16)  # as it is on a GPU
    monkeypatch.setattr(memory, "memory_of", remember)
    keys = jax.random.split(jax.random.key(0), 16)
    everything = jaxrl.vectorize(fn, batch_size="auto", devices=jax.devices()[:1])(keys)
    assert len(widths) == 1
    monkeypatch.setattr(memory, "free_memory", lambda devices: int(widths[0] * 2**20 / 4))
    auto = jaxrl.vectorize(fn, batch_size="auto", devices=jax.devices()[:1])
    np.testing.assert_allclose(auto(keys), everything, rtol=1e-5)
    assert len(widths) > 2
    assert widths[-1] <= 0.9 * widths[0] / 4
    num = len(widths)
    auto(keys)
    assert len(widths) == num  # measured once


def test_auto_says_where_not_even_one_fits(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda devices: 3000)
    with pytest.raises(
        ValueError, match=r"not even one at a time fits: it takes [\d.]+ KiB on each device, and 2.6 KiB are free"
    ):
        jaxrl.vectorize(lambda x: jnp.zeros(1000) + x, batch_size="auto")(jnp.arange(4.0))


CPU = [SimpleNamespace(platform="cpu")]


def test_what_is_free_in_a_container_and_on_a_device_that_does_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "none")
    whole = memory.free_memory(CPU)
    assert whole > 2**20
    (tmp_path / "memory.max").write_text("1048576\n")
    (tmp_path / "memory.current").write_text("48576\n")
    assert memory.free_memory(CPU) == 1_000_000
    assert memory.free_memory(CPU * 2) == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory(CPU) == pytest.approx(whole, rel=0.5)
    silent = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    assert memory.free_memory([silent]) > 2**60


CGROUP_FILES = {
    2: ("", "0::/slurm/job_7/step", ("memory.max", "memory.current", "inactive_file")),
    1: (
        "memory",
        "5:cpu,cpuacct:/other\n4:memory:/slurm/job_7/step\n0::/",
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
}


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_free_in_the_groups_of_a_job(tmp_path, monkeypatch, version):
    """The smallest of what each group around the process leaves, where a cache of files counts as free."""
    controller, own, (limit, used, cached) = CGROUP_FILES[version]
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(own)

    def write_group(path, most, now, cache=None):
        folder = tmp_path / controller / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{most}\n")
        (folder / used).write_text(f"{now}\n")
        if cache is not None:
            (folder / "memory.stat").write_text(f"anon 5\nfile 10\n{cached} {cache}\nactive_file 3\n")

    write_group("slurm/job_7/step", "max" if version == 2 else 2**63 - 4096, 900_000)
    write_group("slurm/job_7", 1_000_000, 900_000, 300_000)
    write_group("slurm", 10**6, 10_000)
    write_group("slurm/job_8", 10, 10)  # of another process
    assert memory.free_memory(CPU) == 400_000
    write_group("", 500_000, 200_000)  # in a container, its own group is what is mounted, and the path is that on the host
    assert memory.free_memory(CPU) == 300_000


@pytest.mark.parametrize(
    ("number", "flags", "is_free"),
    [(-1, "--xla_x=1", True), (1, "", False), (-1, "--xla_x=1 --xla_force_host_platform_device_count=4", False)],
)
def test_a_number_of_cpu_devices_that_is_set_stays(monkeypatch, number, flags, is_free):
    updates = []
    config = SimpleNamespace(jax_num_cpu_devices=number, update=lambda name, value: updates.append((name, value)))
    monkeypatch.setattr(vectorization, "jax", SimpleNamespace(config=config))
    monkeypatch.setenv("XLA_FLAGS", flags)
    vectorization.use_all_cores()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert updates == ([("jax_num_cpu_devices", cores)] if is_free else [])


def test_auto_is_for_the_outermost_call():
    with pytest.raises(ValueError, match="call it outside of jit and vmap, or give a number"):
        jax.jit(jaxrl.vectorize(lambda x: x, batch_size="auto"))(jnp.arange(4.0))


def test_bad_arguments():
    with pytest.raises(TypeError, match="batch_size must be an int"):
        jaxrl.vectorize(lambda x: x, batch_size=1.5)
    for devices in ([], jax.devices()[:1] * 2):
        with pytest.raises(ValueError, match="devices must be at least one device, and each only once"):
            jaxrl.vectorize(lambda x: x, devices=devices)
    assert jaxrl.vectorize(lambda x: x, devices=iter(jax.devices()))(jnp.arange(2.0)).shape == (2,)
    for devices in ("cpu", jax.devices()[0], 2):
        with pytest.raises(TypeError, match="devices must be a sequence of devices"):
            jaxrl.vectorize(lambda x: x, devices=devices)
