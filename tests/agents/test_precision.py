"""Learning with bfloat16 networks, against float32 on the same seeds."""

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import envs, presets
from jaxrl.experiment.statistics import iqm, iqm_interval


def final_returns(algorithm, env_name, steps, dtype, seeds=16):
    settings = presets.override(presets.tuned(algorithm, env_name, steps), network={"dtype": dtype})
    learner, hparams, num_iterations, _ = presets.build(settings, envs.make(env_name))

    def run(key):
        state, _ = jaxrl.train(key, learner, num_iterations, hparams)
        return jaxrl.evaluate(jax.random.fold_in(key, 1), learner, state, num_episodes=20).mean()

    return np.asarray(jaxrl.vectorize(run)(jax.random.split(jax.random.key(0), seeds)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "env_name", "steps", "solved"),
    [("reinforce", "CartPole-v1", 500_000, 450), ("dqn", "CartPole-v1", 100_000, 450), ("reinforce", "PointMass", 250_000, -14)],
)
def test_bfloat16_learns_as_float32_does(algorithm, env_name, steps, solved):
    """The interquartile means of 16 seeds differ by no more than their 95 % intervals together are wide."""
    exact, half = (final_returns(algorithm, env_name, steps, dtype) for dtype in ("float32", "bfloat16"))
    print(f"{algorithm} on {env_name}: IQM {iqm(exact):.2f} in float32, {iqm(half):.2f} in bfloat16")
    assert iqm(half) > solved
    assert abs(iqm(half) - iqm(exact)) <= sum(np.ptp(iqm_interval(returns)) for returns in (exact, half))
