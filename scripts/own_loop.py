"""DQN in a custom training loop, which combines one loss and the replay of jaxrl with flax, optax and gymnax."""

import sys

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, replay

NUM_ENVS, BATCH_SIZE, CAPACITY, WARMUP, UPDATES = 8, 64, 20_000, 125, 4
DISCOUNT, TAU, EPSILON = 0.99, 0.02, 0.1

env, env_params = gymnax.make("CartPole-v1")
network = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(64), nn.relu, nn.Dense(env.num_actions)])
optimizer = optax.adam(1e-3)


@jax.jit
def play(key, iteration, params, obs, env_state, buffer):
    """Take one ε-greedy step in every environment and store it."""
    explore_key, action_key, step_key = jax.random.split(key, 3)
    random_action = jax.random.randint(action_key, (NUM_ENVS,), 0, env.num_actions)
    explores = jax.random.uniform(explore_key, (NUM_ENVS,)) < EPSILON
    action = jnp.where(explores, random_action, losses.greedy(network.apply(params, obs)))
    step_keys = jax.random.split(step_key, NUM_ENVS)
    next_obs, env_state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
        step_keys, env_state, action, env_params
    )
    done = terminated | truncated
    successor = jnp.where(done[:, None], info["final_observation"], next_obs)  # gymnax has reset by now
    item = {"obs": obs, "action": action, "reward": reward, "terminated": terminated, "next_obs": successor}
    return next_obs, env_state, replay.add(buffer, item, iteration), jnp.sum(done)


@jax.jit
def learn(key, iteration, params, target_params, opt_state, buffer):
    """Take `UPDATES` gradient steps, each on a batch from the replay."""

    def loss(params, target_params, batch):
        q_tm1, q_t = network.apply(params, batch["obs"]), network.apply(target_params, batch["next_obs"])
        discount_t = DISCOUNT * (1.0 - batch["terminated"].astype(jnp.float32))
        return jnp.mean(optax.squared_error(losses.q_learning(q_tm1, batch["action"], batch["reward"], discount_t, q_t)))

    filled = replay.num_stored(iteration + 1, NUM_ENVS, CAPACITY)
    for update_key in jax.random.split(key, UPDATES):
        batch = replay.sample(buffer, replay.noise(update_key, (BATCH_SIZE,)), filled)
        grads = jax.grad(loss)(params, target_params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        target_params = optax.incremental_update(params, target_params, TAU)
    return params, target_params, opt_state


def main(num_iterations: int, seed: int = 0) -> float:
    """Train; return the mean length of the episodes in the last quarter, which is their mean return."""
    reset_key, init_key, *keys = jax.random.split(jax.random.key(seed), num_iterations + 2)
    obs, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, NUM_ENVS), env_params)
    params = target_params = network.init(init_key, obs)
    opt_state, flag = optimizer.init(params), jnp.bool_(False)
    example = {"obs": obs[0], "action": jnp.int32(0), "reward": jnp.float32(0), "terminated": flag, "next_obs": obs[0]}
    buffer, finished = replay.init(example, CAPACITY), []
    for i, key in enumerate(keys):
        iteration = jnp.int32(i)
        play_key, learn_key = jax.random.split(key)
        obs, env_state, buffer, ended = play(play_key, iteration, params, obs, env_state, buffer)
        finished.append(ended)
        if i >= WARMUP:
            params, target_params, opt_state = learn(learn_key, iteration, params, target_params, opt_state, buffer)
    last = num_iterations // 4
    return last * NUM_ENVS / max(1, int(sum(finished[-last:])))


if __name__ == "__main__":
    print(f"mean return of the last episodes: {main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000):.1f}")
