"""The options of the DQN family against a loop in NumPy, with a linear network, plain gradient descent and no function of ours.

What they learn where the answer is known is in `test_dqn.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl
from jaxrl import replay
from jaxrl.types import Box, Discrete, Environment, Step
from tests.problems import dqn_learner

NUM_ENVS, NUM_STEPS, CAPACITY, WARMUP = 3, 2, 24, 2
GAMMA, TAU, LEARNING_RATE, ALPHA, BETA, BETA_ITERATIONS, EPS = 0.9, 0.5, 0.1, 0.7, 0.3, 8.0, 1e-6
SCALE, TEMPERATURE = 0.8, 0.2


def ragged() -> Environment:
    """Random observations and rewards; a fifth of the steps terminate, and a fifth are truncated."""

    def reset(key, params):
        return jnp.int32(0), jax.random.normal(key, (2,))

    def step(key, state, action, params):
        obs, reward, end = jax.random.split(key, 3)
        u = jax.random.uniform(end)
        return state, Step(jax.random.normal(obs, (2,)), 2 * jax.random.normal(reward), u < 0.2, u > 0.8)

    return Environment(reset, step, (), Box(-np.inf, np.inf, (2,)), Discrete(3), "ragged")


class Loop:
    """The family's update in float64, on lists of transitions."""

    def __init__(self, params, *, n_step=1, double=False, prioritized=False, munchausen=False, period=1):
        self.params, self.target = (params.copy() for _ in range(2))  # [features + 1, A]
        self.n_step, self.double, self.prioritized, self.munchausen, self.period = n_step, double, prioritized, munchausen, period
        self.history = [[] for _ in range(NUM_ENVS)]  # of transitions, in order of time
        self.priority, self.largest, self.updates = np.zeros(CAPACITY), 1.0, 0

    def store(self, rollout):
        for t in range(NUM_STEPS):
            for env in range(NUM_ENVS):
                row = (len(self.history[env]) * NUM_ENVS + env) % CAPACITY
                self.history[env].append(jax.tree.map(lambda x, i=t * NUM_ENVS + env: x[i], rollout))
                self.priority[row] = self.largest

    def stored(self):
        return min(len(self.history[0]) * NUM_ENVS, CAPACITY)

    def transition(self, row):
        """obs, action, n-step return, discount, and the observation to bootstrap from, of the transition in a row."""
        env, steps = row % NUM_ENVS, len(self.history[0])
        (time,) = (t for t in range(max(0, steps - CAPACITY // NUM_ENVS), steps) if (t * NUM_ENVS + env) % CAPACITY == row)
        first = self.history[env][time]
        total, discount = 0.0, 1.0
        for step in self.history[env][time : time + self.n_step]:
            total, discount, last = total + discount * step.reward, discount * GAMMA, step
            if step.terminated or step.truncated:
                discount *= not step.terminated
                break
        return first.obs, int(first.action), total, discount, last.next_obs

    def td_error(self, obs, action, total, discount, next_obs):
        q, q_target = (np.append(obs, 1) @ params for params in (self.params, self.target))
        next_q, next_q_target = (np.append(next_obs, 1) @ params for params in (self.params, self.target))
        if self.munchausen:
            log_policy, next_log_policy = (np.log(softmax(x / TEMPERATURE)) for x in (q_target, next_q_target))
            total += SCALE * max(TEMPERATURE * log_policy[action], -1.0)
            value = np.exp(next_log_policy) @ (next_q_target - TEMPERATURE * next_log_policy)
        elif self.double:
            value = next_q_target[next_q.argmax()]
        else:
            value = next_q_target.max()
        return total + discount * value - q[action]

    def draw(self, bits, iteration):
        """The rows that random bits `[N]` select, and their importance weights."""
        batch_size, stored = len(bits), self.stored()
        if not self.prioritized:
            return bits % stored, np.ones(batch_size)
        uniform = (bits >> 8) / 2**24
        points = (np.arange(batch_size) + uniform) / batch_size * self.priority.sum()
        rows = np.searchsorted(np.cumsum(self.priority), points, side="right")
        beta = BETA + (1 - BETA) * min(iteration / BETA_ITERATIONS, 1.0)
        weights = (stored * self.priority[rows] / self.priority.sum()) ** -beta
        return rows, weights / weights.max()

    def update(self, bits, iteration):
        """One gradient step with random bits `[N]`."""
        batch_size = len(bits)
        rows, weights = self.draw(bits, iteration)
        batch = [self.transition(row) for row in rows]
        errors = np.array([self.td_error(*transition) for transition in batch])
        gradient = np.zeros_like(self.params)
        for (obs, action, *_), error, weight in zip(batch, errors, weights, strict=True):
            gradient[:, action] -= weight * 2 * error * np.append(obs, 1) / batch_size
        self.params = self.params - LEARNING_RATE * gradient
        self.updates += 1
        if self.updates % self.period == 0:
            self.target = TAU * self.params + (1 - TAU) * self.target
        for row in set(rows.tolist()):
            self.priority[row] = ((np.abs(errors[rows == row]) + EPS) ** ALPHA).max()
        self.largest = max(self.largest, self.priority.max())
        return np.mean(weights * errors**2)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def matrix(params):
    layer = params["params"]["Dense_0"]
    return np.concatenate([layer["kernel"], layer["bias"][None]]).astype(np.float64)


def newest(stored, iteration):
    """The rollout that iteration `iteration` stored, leaves `[T * B, ...]`."""
    size = NUM_STEPS * NUM_ENVS
    rows = (iteration % (CAPACITY // size)) * size + np.arange(size)
    return jax.tree.map(np.asarray, jax.jit(replay.take)(stored, rows))


OPTIONS = {
    "prioritized, three steps, double": {"prioritized": True, "n_step": 3, "double": True},
    "uniform, two steps, munchausen": {"n_step": 2, "munchausen": True},
}


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("name", OPTIONS)
def test_updates_are_those_of_a_loop(name):
    """From a partly filled replay, over its end and on; two updates an iteration, and the target moved after every third."""
    static = OPTIONS[name]
    learner = dqn_learner(
        ragged(), num_envs=NUM_ENVS, rollout_length=NUM_STEPS, hidden=(), optimizer=optax.sgd, capacity=CAPACITY, warmup=WARMUP,
        batch_size=8, updates_per_iteration=2, target_update_period=3, **static,
    )  # fmt: skip
    given = {
        "discount": GAMMA,
        "tau": TAU,
        "learning_rate": LEARNING_RATE,
        "priority_exponent": ALPHA,
        "importance_exponent": BETA,
    }
    given |= {"importance_exponent_iterations": BETA_ITERATIONS, "munchausen_scale": SCALE, "munchausen_temperature": TEMPERATURE}
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams._replace(**given))
    state = jax.jit(learner.init)(jax.random.key(0), hparams)
    rows_of = lambda state: state.agent.replay.rows if static.get("prioritized") else state.agent.replay
    loop = Loop(matrix(state.agent.params), period=3, **static)
    for iteration in range(WARMUP):
        loop.store(newest(rows_of(state), iteration))
    step, draw, ends = jax.jit(learner.step), jax.jit(learner.noise), set()
    for iteration in range(WARMUP, WARMUP + 9):
        noise = draw(jax.random.fold_in(state.key, iteration))
        state, metrics = step(state, noise, hparams, jnp.int32(iteration))
        loop.store(newest(rows_of(state), iteration))
        losses = [loop.update(np.asarray(bits).astype(np.int64), iteration) for bits in noise.update[0]]
        np.testing.assert_allclose(np.mean(losses), np.mean(metrics["loss"]), rtol=1e-4)
        np.testing.assert_allclose(matrix(state.agent.params), loop.params, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(matrix(state.agent.target_params), loop.target, rtol=1e-4, atol=1e-5)
        if static.get("prioritized"):
            priority = np.asarray(state.agent.replay.sums[0])[:CAPACITY]
            np.testing.assert_allclose(priority, loop.priority, rtol=1e-3, atol=1e-5)
            assert np.all(priority[: loop.stored()] > 0)
        ends |= {(bool(x.terminated), bool(x.truncated)) for steps in loop.history for x in steps}
    assert ends == {(False, False), (True, False), (False, True)}
    assert len(loop.history[0]) * NUM_ENVS > 2 * CAPACITY


class NoisyBias(NamedTuple):
    """Action values w + n, with a noise n `[..., A]` and the same for all observations."""

    def init(self, key, obs):
        return jax.random.normal(key, (3,))

    def noise(self, key, shape):
        return jax.random.normal(key, (*shape, 3))

    def apply(self, params, obs, noise=None):
        q = jnp.broadcast_to(params, (*obs.shape[:-1], 3))
        return q if noise is None else q + jnp.broadcast_to(noise, q.shape)


def noisy_learner(**static):
    agent = jaxrl.agents.dqn(NoisyBias(), Discrete(3), noisy=True, capacity=24, batch_size=8, warmup=1, **static)
    learner = jaxrl.make_learner(ragged(), agent, num_envs=4, rollout_length=2)
    hparams = agent.hparams._replace(epsilon_start=0.0, epsilon_end=0.0, discount=GAMMA)
    return learner, jax.tree.map(jnp.float32, hparams)


def test_a_noisy_network_has_its_own_noise_in_every_step_and_environment_and_none_in_evaluation():
    learner, hparams = noisy_learner()
    w, obs = jnp.float32([0.1, 0.3, 0.2]), jnp.zeros((4, 2))
    act = learner.noise(jax.random.key(0)).rollout.act
    noise = np.asarray(act[1][0])
    assert len(np.unique(noise)) == noise.size == 2 * 4 * 3
    for t in range(2):
        noise_t = jax.tree.map(lambda x, t=t: x[t], act)
        action = learner.agent.explore(w, obs, (), noise_t, hparams, jnp.int32(0))[0]
        np.testing.assert_array_equal(action, np.argmax(np.asarray(w) + noise[t], axis=1))
    np.testing.assert_array_equal(learner.agent.exploit(w, obs, (), jax.random.key(1))[0], [1, 1, 1, 1])


@pytest.mark.parametrize("double", [False, True])
def test_a_noisy_update_has_one_noise_for_each_network_and_gradient_step(double):
    learner, hparams = noisy_learner(double=double, updates_per_iteration=2)
    hparams = hparams._replace(learning_rate=jnp.float32(0.0), tau=jnp.float32(0.0))
    state = learner.init(jax.random.key(0), hparams)
    noise = learner.noise(jax.random.key(1))
    after, metrics = jax.jit(learner.step)(state, noise, hparams, jnp.int32(1))
    w, bits = np.asarray(state.agent.params), np.asarray(noise.update[0])
    online, target, selector = (np.asarray(x[0]) for x in noise.update[1])
    assert len({*online.ravel(), *target.ravel(), *selector.ravel()}) == 3 * 2 * 3
    items = jax.tree.map(np.asarray, jax.jit(replay.take)(after.agent.replay, np.arange(16)))
    loss = []
    for u in range(2):
        rows = bits[u] % 16
        value = (w + target[u])[np.argmax(w + (selector[u] if double else target[u]))]
        error = items.reward + np.where(items.terminated, 0, GAMMA * value) - (w + online[u])[items.action]
        loss.append(error[rows] ** 2)
    np.testing.assert_allclose(np.mean(metrics["loss"]), np.mean(loss), rtol=1e-5)
