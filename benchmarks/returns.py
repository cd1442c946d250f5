"""Compare returns and advantages with rlax: `python benchmarks/returns.py`; rlax must be installed.

Both compute the same numbers, interleaved in one process. Times are medians of twenty calls for T steps of B rollouts. rlax
takes one rollout `[T]`, so it runs under `vmap` over the second axis.
"""

import statistics
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import returns

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import rlax

BATCH, LAMBDA = 2048, 0.95


def functions() -> dict:
    """For each name jaxrl's function and rlax's, both of (r_t, discount_t, values[T + 1, B])."""

    def our_gae(r_t, discount_t, values):
        return returns.generalized_advantage_estimation(r_t, discount_t, values[:-1], values[1:], LAMBDA)

    def their_gae(r_t, discount_t, values):
        return rlax.truncated_generalized_advantage_estimation(r_t, discount_t, LAMBDA, values)

    def our_lambda(r_t, discount_t, values):
        return returns.lambda_returns(r_t, discount_t, values[1:], LAMBDA)

    def their_lambda(r_t, discount_t, values):
        return rlax.lambda_returns(r_t, discount_t, values[1:], LAMBDA)

    return {
        "generalized_advantage_estimation": (our_gae, jax.vmap(their_gae, 1, 1)),
        "lambda_returns": (our_lambda, jax.vmap(their_lambda, 1, 1)),
    }


def main() -> None:
    print("| | T | B | jaxrl, ms | rlax, ms | ratio |\n|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for name, pair in functions().items():
        for num_steps in (128, 512, 2048, 4096):
            r_t, values = (jnp.asarray(rng.normal(size=(n, BATCH)), jnp.float32) for n in (num_steps, num_steps + 1))
            args = (r_t, jnp.full((num_steps, BATCH), 0.99), values)
            ours, theirs = (jax.jit(fn) for fn in pair)
            np.testing.assert_allclose(ours(*args), theirs(*args), rtol=1e-4, atol=1e-4)
            seconds: tuple[list, list] = ([], [])
            turns = list(zip((ours, theirs), seconds, strict=True))
            for i in range(20):
                for fn, times in turns[:: 1 if i % 2 else -1]:  # alternating order, since the second finds the caches warm
                    start = time.perf_counter()
                    jax.block_until_ready(fn(*args))
                    times.append(time.perf_counter() - start)
            mine, other = (1e3 * statistics.median(times) for times in seconds)
            print(f"| {name} | {num_steps} | {BATCH} | {mine:.2f} | {other:.2f} | {other / mine:.2f} |", flush=True)


if __name__ == "__main__":
    main()
