"""Runs that are interrupted and resumed: equal bit for bit to those that are not, whatever happened to their folder."""

import csv
import errno
import json
import shutil
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.experiment import Config, Interrupted, checkpoints, csv_file, folder, load, locks, resume, run, save, storage, training
from jaxrl.experiment.checkpoints import restore
from jaxrl.experiment.config import load_config
from jaxrl.experiment.csv_file import CsvFile
from jaxrl.experiment.notes import Note
from jaxrl.experiment.policies import SavedPolicy
from jaxrl.experiment.trainers import Chunk, Trainer
from jaxrl.presets import DEFAULTS, Preset, override
from tests.problems import dqn_learner

INTERVAL, ITERATIONS = 2, 8
SETTINGS = override(DEFAULTS["dqn"], steps=240, num_envs=4, network={"hidden": (8,)},
                    agent={"batch_size": 8, "capacity": 64, "warmup_steps": 40, "updates_per_iteration": 1})  # fmt: skip
CONFIG = Config(env="CartPole-v1", settings=SETTINGS, seeds=5, batch_size=2)
CHUNKS = 3 * ITERATIONS // INTERVAL


NAMES = {"config.json", "metrics.csv", "evaluation.csv", "system.json", "curve.png", "evaluation.png", "policies",
         "best_policies"}  # fmt: skip


class Killed(BaseException):
    pass


def small_trainer(config, preset, *, batch=None, resumable=True):
    """A trainer of runs that are a number and a key each, in place of a compiled program."""
    size = 2 if resumable else 1

    def chunks(runs, done, states):
        if states is None:
            seeds = jnp.minimum(runs.start + jnp.arange(size), config.num_runs - 1)
            states = {"x": seeds.astype(jnp.float32), "key": jax.vmap(jax.random.key)(seeds)}
        num = runs.stop - runs.start
        for start in range(done, ITERATIONS, INTERVAL):
            draw = jax.vmap(lambda key, start=start: jax.random.uniform(jax.random.fold_in(key, start)))
            states = states | {"x": states["x"] * 1.1 + draw(states["key"])}
            x = np.asarray(states["x"])[:num]
            metrics = {"episode_return": x, "episodes": np.ones(num), "loss": x / 3}
            yield Chunk(runs, start + INTERVAL, start + INTERVAL, states, metrics, start)

    def policies(chunk):
        return SavedPolicy({"w": np.asarray(chunk.states["x"])[: chunk.runs.stop - chunk.runs.start]}, ())

    abstract = {"x": jnp.zeros(size), "key": jax.random.split(jax.random.key(0), size)} if resumable else None
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    return Trainer(size, 1, chunks, policies, jax.tree.map(place, abstract))


def small_evaluation(keys, policies):
    """Returns that rise and fall during training, by turns, and differ between the episodes of a run and between runs."""
    bits = jax.random.key_data(keys)[:, :1] % 8
    return np.float32(np.cos(3 * policies.params["w"])[:, None] + np.arange(3) * np.asarray(bits))


@pytest.fixture
def small(monkeypatch):
    """Training without a compiled program, and with a checkpoint after each chunk."""
    preset = Preset(dqn_learner(), None, ITERATIONS, ITERATIONS)
    monkeypatch.setattr(Config, "preset", lambda config: preset)
    monkeypatch.setattr(training, "make_trainer", small_trainer)
    monkeypatch.setattr(
        training, "abstract_policies", lambda config, preset: SavedPolicy({"w": np.empty(config.num_runs, np.float32)}, ())
    )
    monkeypatch.setattr(training, "greedy_evaluation", lambda learner, num_episodes: small_evaluation)
    monkeypatch.setattr(Config, "runs", lambda config, preset: (jax.random.split(jax.random.key(0), config.num_runs), None))
    monkeypatch.setattr(training.curves, "plot", lambda curves, path, what="": path.write_text("a picture") and path)
    monkeypatch.setattr(checkpoints, "_COST", np.inf)


def killed_at(chunk):
    """A report that stops everything after a number of chunks; the first report comes before them."""
    left = chunk + 1

    def report(progress):
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    return report


def interrupted(out, chunk, config=CONFIG):
    with pytest.raises(Killed):
        run(config, out, report=killed_at(chunk), checkpoint_every=0)
    return out


def rows(out):
    with (out / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "wall_seconds"} for row in csv.DictReader(file)]


def assert_same(out, result, reference, reference_result):
    assert rows(out) == rows(reference)
    jax.tree.map(np.testing.assert_array_equal, result.policies, reference_result.policies)
    np.testing.assert_array_equal(result.evaluation_returns, reference_result.evaluation_returns)
    assert {path.name for path in out.iterdir()} == NAMES
    assert (out / "evaluation.csv").read_text() == (reference / "evaluation.csv").read_text()
    assert folder.read_record(out, "best") == folder.read_record(reference, "best")
    best, expected = (
        folder.load_policies(path, jax.tree.map(np.empty_like, result.policies), "best") for path in (out, reference)
    )
    jax.tree.map(np.testing.assert_array_equal, best, expected)


@pytest.fixture
def reference(small, tmp_path):
    return tmp_path / "reference", run(CONFIG, tmp_path / "reference", checkpoint_every=None)


@pytest.mark.parametrize("chunk", [0, 1, 3, 4, 6, CHUNKS])  # a batch has four
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(reference, tmp_path, chunk):
    out = interrupted(tmp_path / "run", chunk)
    assert len(list((out / "checkpoints").glob("0*"))) <= 2 if chunk else not (out / "checkpoints").exists()
    assert_same(out, resume(out), *reference)


def test_a_run_that_is_killed_again_and_again_goes_on_too(reference, tmp_path):
    out = interrupted(tmp_path / "run", 2)
    for chunk in (1, 3, 2, 1):
        with pytest.raises(Killed):
            resume(out, report=killed_at(chunk), checkpoint_every=0)
    assert_same(out, resume(out), *reference)


@pytest.mark.parametrize(("every", "saved"), [(1e9, True), (None, False)])
def test_a_run_that_is_asked_to_stop_saves_first(reference, tmp_path, every, saved):
    out, asked = tmp_path / "run", iter([False] * 6)
    with pytest.raises(Interrupted, match="a checkpoint is saved" if saved else "the run will begin again") as stopped:
        run(CONFIG, out, checkpoint_every=every, stop=lambda: next(asked, True))
    assert stopped.value.saved == saved == (out / "checkpoints" / "000001").exists()
    seen = []
    assert_same(out, resume(out, report=seen.append), *reference)
    assert len(seen) == 1 + (CHUNKS - 6 if saved else CHUNKS)


def test_a_batch_that_cannot_go_on_from_its_states_begins_again(small, tmp_path, monkeypatch):
    trainer = lambda *args, **kwargs: small_trainer(*args, **kwargs, resumable=False)
    monkeypatch.setattr(training, "make_trainer", trainer)
    result, out = run(CONFIG, tmp_path / "reference"), tmp_path / "run"
    asked = iter([False] * 7)
    with pytest.raises(Interrupted):
        run(CONFIG, out, stop=lambda: next(asked, True))  # in the second run, after its third chunk
    assert len(rows(out)) == 7
    seen = []
    assert_same(out, resume(out, report=seen.append), tmp_path / "reference", result)
    assert len(seen) == 1 + 4 * ITERATIONS // INTERVAL


@pytest.mark.parametrize("stage", ["write_evaluation", "plot"])
def test_what_is_trained_is_not_trained_again(reference, tmp_path, monkeypatch, stage):
    def killed(*args, **kwargs):
        raise Killed

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(training.curves if stage == "plot" else training, stage, killed)
        with pytest.raises(Killed):
            run(CONFIG, out)
    assert not folder.is_finished(out)
    monkeypatch.setattr(training, "make_trainer", lambda *args, **kwargs: pytest.fail("it trains again"))
    assert_same(out, resume(out), *reference)
    assert folder.is_finished(out)


# --- damage -----------------------------------------------------------------------------------------


def damage(path, how):
    """Damage each kind of file in a checkpoint in turn."""
    if how == "no record":
        (path / "record.json").unlink()
    elif how == "no checksums":
        (path / "checksums.json").unlink()
    elif how == "half a record":
        (path / "record.json").write_bytes((path / "record.json").read_bytes()[:30])
    elif how == "half the checksums":
        (path / "checksums.json").write_bytes((path / "checksums.json").read_bytes()[:30])
    elif how == "no arrays":
        shutil.rmtree(path / "arrays")
    else:
        largest = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 4
        largest.write_bytes(bytes(data) if how == "a flipped bit" else bytes(data[:-1]))


DAMAGE = ["no record", "no checksums", "half a record", "half the checksums", "no arrays", "a flipped bit", "a byte less"]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(reference, tmp_path, how):
    out = interrupted(tmp_path / "run", 6)
    newest = max((out / "checkpoints").glob("0*"))
    damage(newest, how)
    with pytest.warns(Note, match=rf"{newest.name} is damaged .* continuing from the one before, 000005"):
        result = resume(out)
    assert_same(out, result, *reference)


def test_a_damaged_checkpoint_is_not_one_of_those_that_are_kept(small, tmp_path):
    """Else the next one would push out the last that is whole."""
    out = interrupted(tmp_path / "run", 6)
    older, newest = sorted((out / "checkpoints").glob("0*"))
    damage(newest, "half a record")
    with pytest.warns(Note, match="is damaged"):
        restore(out, load_config(out))
    assert sorted((out / "checkpoints").glob("0*")) == [older]


def test_without_a_whole_checkpoint_the_run_begins_again(reference, tmp_path):
    out = interrupted(tmp_path / "run", 6)
    for path in (out / "checkpoints").glob("0*"):
        damage(path, "a flipped bit")
    with pytest.warns(Note, match="is damaged") as notes:
        result = resume(out)
    assert "continuing from the one before" in str(notes[0].message)
    assert "the run begins again" in str(notes[1].message)
    assert_same(out, result, *reference)


def test_a_checkpoint_is_there_whole_or_not_at_all(small, tmp_path, monkeypatch):
    """Killed while one is written, a folder has what it had before, and goes on from that."""
    out = interrupted(tmp_path / "run", 3)
    before = {path.name for path in (out / "checkpoints").glob("0*")}
    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "rename", lambda *args: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            resume(out, checkpoint_every=0)
    assert {path.name for path in (out / "checkpoints").glob("0*")} == before
    (out / "checkpoints" / "000009.unfinished").mkdir()
    resume(out)


@pytest.mark.parametrize("change", ["removed", "altered", "has only 3 of"])
def test_metrics_that_do_not_fit_the_checkpoint_are_named(small, tmp_path, change):
    out = interrupted(tmp_path / "run", 6)
    metrics = out / "metrics.csv"
    text = metrics.read_bytes()
    metrics.unlink()
    if change != "removed":
        metrics.write_bytes(text.replace(b"0", b"1") if change == "altered" else text[:3])
    with pytest.raises(ValueError, match=rf"metrics\.csv (was )?{change}.*since the last checkpoint: put it back"):
        resume(out)
    metrics.write_bytes(text + b"half a ro")
    resume(out)


def test_what_has_changed_is_named_and_needs_force(reference, tmp_path, monkeypatch):
    out = interrupted(tmp_path / "run", 6)
    monkeypatch.setattr(jax, "__version__", "9.9")
    text = (out / "config.json").read_text()
    edited = json.loads(text)
    edited["hparams"]["learning_rate"] = 0.5
    (out / "config.json").write_text(json.dumps(edited))
    message = r"trained otherwise: jax was .* and is 9\.9; hparams\.learning_rate was None and is 0\.5.*--force"
    with pytest.raises(ValueError, match=message):
        resume(out)
    for field, value in {"seeds": 7, "samples": [{"tau": 0.5}]}.items():
        (out / "config.json").write_text(json.dumps(edited | {field: value}))
        with pytest.raises(ValueError, match=rf"config\.json was edited: {field} was .* and is "):
            resume(out, force=True)
    (out / "config.json").write_text(text)
    with pytest.warns(Note, match=r"jax was .* and is 9\.9"):
        result = resume(out, force=True)
    assert_same(out, result, *reference)


def test_another_number_of_devices_is_said(reference, tmp_path, monkeypatch):
    out = interrupted(tmp_path / "run", 6)
    monkeypatch.setattr(jax, "local_devices", lambda devices=jax.local_devices(): devices[:1])
    with pytest.warns(Note, match="continues on 1 devices in place of 2: .* up to float rounding"):
        assert_same(out, resume(out), *reference)


# --- locks ------------------------------------------------------------------------------------------


def test_a_folder_belongs_to_one_process(small, tmp_path):
    out = interrupted(tmp_path / "run", 3)
    assert locks.holder(out) is None
    with locks.locked(out):
        assert locks.holder(out).startswith("process ")
        with pytest.raises(ValueError, match=r"run is in use by process \d+ on "):
            resume(out)
    assert not (out / "lock").exists()


def test_the_lock_of_a_dead_process_is_not_in_the_way(small, tmp_path):
    out = interrupted(tmp_path / "run", 3)
    (out / "lock").write_text("process 1 on this-host\n")
    assert locks.holder(out) is None
    resume(out)


# --- a full disk ------------------------------------------------------------------------------------


class FullDisk:
    """A file on which the disk is full for some calls, after it took the first bytes."""

    def __init__(self, file, full):
        self.file, self.full = file, full

    def write(self, data):
        if next(self.full, False):
            self.file.write(bytes(data)[:7])
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_rows_that_do_not_fit_on_the_disk_are_tried_again(tmp_path):
    with CsvFile(tmp_path / "a.csv") as file, warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        file._file = FullDisk(file._file, iter([False, True, True, False]))
        for i in range(5):
            file.write([{"a": i, "b": 2 * i}])
            text = (tmp_path / "a.csv").read_text()
            assert text.count("\n") == (i + 2 if i not in (1, 2) else 2)
            assert text.endswith("\n"), "no half rows"
    (note,) = notes
    assert "a.csv (No space left on device): its rows are kept in memory and tried again" in str(note.message)
    assert (tmp_path / "a.csv").read_bytes() == b"a,b\r\n" + b"".join(b"%d,%d\r\n" % (i, 2 * i) for i in range(5))
    csv_file.check_position(tmp_path / "a.csv", file.position)


def test_a_disk_that_stays_full_is_one_line(tmp_path):
    file = CsvFile(tmp_path / "a.csv")
    file._file = FullDisk(file._file, iter([True] * 9))
    with pytest.warns(Note):
        file.write([{"a": 1}])
    with pytest.raises(ValueError, match=r"cannot write .*a\.csv \(No space left on device\)"):
        file.__exit__(None)


def test_a_checkpoint_that_cannot_be_written_stops_nothing(reference, tmp_path, monkeypatch):
    write, calls = storage.write, []

    def full(path, arrays, record):
        calls.append(path.name)
        if path.name == "000003" or (path.name == "policies" and calls.count("policies") == 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, arrays, record)

    monkeypatch.setattr(storage, "write", full)
    out = tmp_path / "run"
    not_saved = pytest.warns(Note, match=r"cannot save a checkpoint in .* \(No space left on device\); it is tried again later")
    with not_saved, pytest.raises(ValueError, match=r"cannot write .*policies \(No space left on device\): make room and"):
        run(CONFIG, out, checkpoint_every=0)
    assert calls.count("000003") > 4
    assert_same(out, resume(out), *reference)


@pytest.mark.parametrize(
    ("cost", "fails", "times"),
    [
        (1, False, [300, 601, 902]),  # 1 s of 300 s is less than 3 %
        (30, False, [300, 1330, 2360]),  # 30 s are 3 % of 1,000 s
        (30, True, [300, 1330, 2360]),  # what could not be written took as long
    ],
)
def test_checkpoints_take_at_most_three_per_cent_of_the_time(tmp_path, monkeypatch, cost, fails, times):
    """By a clock of its own, on which training takes steps of a second; the first checkpoint tells what one costs."""
    now, saved = 0, []

    def write(path, arrays, record):
        nonlocal now
        now += cost / 2 if fails else cost  # it is tried twice
        if fails:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "time", types.SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(checkpoints.storage, "write", write)
    writer = checkpoints.Checkpoints(tmp_path, CONFIG, 2, 1, 300, None)
    never = checkpoints.Checkpoints(tmp_path, CONFIG, 2, 1, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        while now < 3000 - cost:
            now += 1
            assert not never.due()
            if writer.due():
                saved.append(now)
                assert writer.save(lambda: checkpoints.Place(0, 0, 0.0, {}), [], (), None) is not fails
    assert saved[:3] == times


def test_arrays_that_do_not_fit_leave_nothing_behind(tmp_path, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    def full(path, arrays):
        path.mkdir()
        raise RuntimeError("RESOURCE_EXHAUSTED: no space\nand thirty more lines")

    monkeypatch.setattr(ocp, "save", full)
    with pytest.raises(OSError, match=r"RESOURCE_EXHAUSTED: no space$"):
        storage.write(tmp_path / "a", {"x": jnp.ones(3)}, {})
    assert not any(tmp_path.iterdir())


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ValueError, match=r"cannot write .*a\.csv \(Is a directory\)"):
        CsvFile(tmp_path / "a.csv")


# --- real programs ----------------------------------------------------------------------------------


def test_states_of_several_seeds_come_back(tmp_path):
    """With keys, a replay, and the number of the next iteration; the run goes on with the same bits."""
    learner = dqn_learner()
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams)
    states = jax.jit(jax.vmap(lambda key: learner.init(key, hparams)))(jax.random.split(jax.random.key(0), 2))
    save(tmp_path / "states", states, learner.agent.warmup)
    loaded, iteration = load(tmp_path / "states", learner)
    assert iteration == learner.agent.warmup
    assert jax.tree.structure(loaded) == jax.tree.structure(states)
    for x, y in zip(jax.tree.leaves(loaded), jax.tree.leaves(states), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(*(jax.random.key_data(v) if v.dtype == states.key.dtype else v for v in (x, y)))
    with pytest.raises(ValueError, match="states exists: choose another folder"):
        save(tmp_path / "states", states, 0)
    with pytest.raises(TypeError, match="state must be a LearnerState"):
        save(tmp_path / "other", {"a": 1}, 0)
    with pytest.raises(ValueError, match="there is no saved state in"):
        load(tmp_path / "other", learner)
    damage(tmp_path / "states", "a flipped bit")
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path / "states", learner)


def test_a_state_of_another_learner_is_refused(tmp_path):
    save(tmp_path / "state", init_state(dqn_learner()), 0)
    env = jaxrl.make("CartPole-v1")
    network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=(3,))
    agent = jaxrl.agents.dqn(network, env.action_space, batch_size=4, capacity=16, warmup=4)
    with pytest.raises(ValueError, match="of another configuration"):
        load(tmp_path / "state", jaxrl.make_learner(env, agent, num_envs=2, rollout_length=1))


def init_state(learner):
    return jax.jit(learner.init)(jax.random.key(0), jax.tree.map(jnp.float32, learner.agent.hparams))


def test_dqn_goes_on_bit_for_bit_on_two_devices(tmp_path):
    config = Config(env="CartPole-v1", settings=SETTINGS, seeds=2)
    asked = iter([False] * 5)
    with pytest.raises(Interrupted):
        run(config, tmp_path / "run", stop=lambda: next(asked, True))
    result = resume(tmp_path / "run")
    reference = run(config, tmp_path / "reference", checkpoint_every=None)
    assert_same(tmp_path / "run", result, tmp_path / "reference", reference)
