"""One loss of jaxrl in somebody else's program: an equinox network learns the values of a random walk by TD(0).

The chain has five states; an episode starts in the middle, goes left or right at random, and ends at either end with the reward 0
or 1. The value of state i is (i + 1) / 6 (Sutton & Barto 2018, example 6.2), so that the answer is known.

    pip install equinox
    python scripts/examples/equinox_loss.py
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from jaxrl import losses

NUM_STATES, BATCH_SIZE = 5, 256


def transitions(key):
    """A batch of steps from uniformly drawn states: one-hot states, rewards, discounts, one-hot successors."""
    state_key, move_key = jax.random.split(key)
    state = jax.random.randint(state_key, (BATCH_SIZE,), 0, NUM_STATES)
    successor = state + 2 * jax.random.bernoulli(move_key, shape=(BATCH_SIZE,)) - 1
    ended = (successor < 0) | (successor == NUM_STATES)
    reward = (successor == NUM_STATES).astype(jnp.float32)
    discount = 1.0 - ended.astype(jnp.float32)  # 0 only where the episode terminated
    return jax.nn.one_hot(state, NUM_STATES), reward, discount, jax.nn.one_hot(successor, NUM_STATES)


def loss(network, batch):
    obs, reward, discount, next_obs = batch
    values, next_values = jax.vmap(network)(obs), jax.vmap(network)(next_obs)
    return jnp.mean(losses.td_learning(values, reward, discount, next_values) ** 2)


@eqx.filter_jit
def train(network, opt_state, keys):
    arrays, static = eqx.partition((network, opt_state), eqx.is_array)

    def step(arrays, key):
        network, opt_state = eqx.combine(arrays, static)
        value, grads = eqx.filter_value_and_grad(loss)(network, transitions(key))
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.filter((eqx.apply_updates(network, updates), opt_state), eqx.is_array), value

    arrays, values = jax.lax.scan(step, arrays, keys)
    return eqx.combine(arrays, static), values


optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 2_000))


def main(num_updates: int = 2_000) -> float:
    """Train; return the largest error of a value."""
    init_key, run_key = jax.random.split(jax.random.key(0))
    network = eqx.nn.MLP(NUM_STATES, "scalar", width_size=32, depth=1, key=init_key)
    opt_state = optimizer.init(eqx.filter(network, eqx.is_array))
    (network, _), _ = train(network, opt_state, jax.random.split(run_key, num_updates))
    learned, exact = jax.vmap(network)(jnp.eye(NUM_STATES)), (jnp.arange(NUM_STATES) + 1) / (NUM_STATES + 1)
    print("learned", learned.round(3), "exact", exact.round(3))
    return float(jnp.max(jnp.abs(learned - exact)))


if __name__ == "__main__":
    print(f"largest error: {main(*map(int, sys.argv[1:])):.3f}")
