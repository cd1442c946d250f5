"""`save` and `load` a learner state."""

from pathlib import Path

import jax

import jaxrl
from jaxrl._src.checks import check_size
from jaxrl._src.keys import unwrap_keys, wrap_keys
from jaxrl.experiment import storage
from jaxrl.learner import check_and_cast
from jaxrl.types import Learner, LearnerState


def save(path: Path | str, state: LearnerState, iteration: int) -> None:
    """Save the state of a run, or of many runs, with the number of its next iteration. Together they continue the run.

    The folder is written with orbax, atomically and with checksums, and memory does not double. It holds arrays and JSON: loading
    it runs no code.

    Args:
      path: a folder that does not exist.
      state: from `jaxrl.train`, `jaxrl.advance` or `learner.init`, also under `vmap` or `jaxrl.vectorize`.
      iteration: the number of the next iteration, `agent.warmup + num_iterations` after `jaxrl.train`.

    Raises:
      ValueError: if the folder exists or cannot be written.
      TypeError: if `state` is not a LearnerState, or `iteration` not an int.

    >>> import jax, jaxrl, tempfile
    >>> env = jaxrl.make("CartPole-v1")
    >>> network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=(4,))
    >>> agent = jaxrl.agents.dqn(network, env.action_space, batch_size=4, capacity=66, warmup=3)
    >>> learner = jaxrl.make_learner(env, agent, num_envs=2, rollout_length=3)
    >>> state, metrics = jaxrl.train(jax.random.key(0), learner, 2)
    >>> folder = tempfile.mkdtemp() + "/state"
    >>> save(folder, state, agent.warmup + 2)
    >>> state, iteration = load(folder, learner)
    >>> state, metrics = jaxrl.advance(state, iteration, learner, 2)  # doctest: +SKIP
    """
    path = Path(path)
    if not isinstance(state, LearnerState):
        raise TypeError(f"state must be a LearnerState, such as jaxrl.train returns; got {type(state).__name__}")
    iteration = check_size("iteration", iteration, minimum=0)
    if path.exists():
        raise ValueError(f"{path} exists: choose another folder, or remove it")
    record = {"jaxrl": jaxrl.__version__, "iteration": iteration, "batch_shape": list(state.key.shape)}
    try:
        storage.write(path, unwrap_keys(state), record)
    except OSError as error:
        raise ValueError(f"cannot write {path} ({storage.reason(error)})") from error


def load(path: Path | str, learner: Learner) -> tuple[LearnerState, int]:
    """Read what `save` wrote, onto the first device of this process.

    Args:
      path: the folder.
      learner: the learner of the run, or one that is built in the same way. Its sizes must be those of the run; hyperparameters
        may differ.

    Returns:
      The state, with the leading axes that it was saved with, and the number of the next iteration, for `jaxrl.advance`.

    Raises:
      ValueError: if there is no such folder, it is damaged, or the state is of another learner.
      TypeError: for a learner whose environments run on the host, since their state is in Python and cannot be saved.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"there is no saved state in {path}")
    record = storage.read_record(path)
    try:
        shape, iteration = tuple(record["batch_shape"]), record["iteration"]
    except KeyError as error:
        raise ValueError(f"{path} holds no learner state: save one with jaxrl.experiment.save") from error
    key = jax.random.key(0)
    one = jax.eval_shape(learner.init, key, check_and_cast(key, learner, None))
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(shape + x.shape, x.dtype), one)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), jax.eval_shape(unwrap_keys, abstract)
    )
    return wrap_keys(storage.read_arrays(path, placed), abstract), iteration
