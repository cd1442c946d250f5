"""What returns and advantages are to each other, at the ends of λ and on-policy; and rlax."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxrl import returns
from tests import calls

n_step_returns = jax.jit(returns.n_step_returns, static_argnames="n")
close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def rollout(seed=0, shape=(9, 4)):
    """Arguments whose values are of one function: v_t is v_tm1 one step on, but where the episode was cut.

    The first column is of one episode.
    """
    rng = np.random.default_rng(seed)
    r_t, v_tm1, own = rng.normal(size=(3, *shape)).astype(np.float32)
    columns = np.arange(shape[1]) > 0
    truncated = (rng.random(shape) < 0.2) & columns
    v_t = np.where(truncated | (np.arange(shape[0]) == shape[0] - 1)[:, None], own, np.roll(v_tm1, -1, axis=0))
    ended = (rng.random(shape) < 0.2) & columns
    return {
        "r_t": r_t,
        "discount_t": np.where(ended, np.float32(0), np.float32(0.9)),
        "v_tm1": v_tm1,
        "v_t": v_t,
        "truncated": truncated,
    }


def targets_of(args):
    return {k: v for k, v in args.items() if k != "v_tm1"}


each_lambda = pytest.mark.parametrize("lambda_", [0.0, 0.3, 1.0])
gae = jax.jit(returns.generalized_advantage_estimation)
lambda_returns = jax.jit(returns.lambda_returns)
discounted_returns = jax.jit(returns.discounted_returns)
vtrace = jax.jit(returns.vtrace)
retrace = jax.jit(returns.retrace)
q_lambda = jax.jit(returns.q_lambda)


@each_lambda
def test_advantages_and_values_are_lambda_returns(lambda_):
    args = rollout()
    close(gae(**args, lambda_=lambda_) + args["v_tm1"], lambda_returns(**targets_of(args), lambda_=lambda_))


def test_advantages_at_lambda_one_are_monte_carlo_less_the_value():
    args = rollout(1)
    close(gae(**args, lambda_=1.0) + args["v_tm1"], discounted_returns(**targets_of(args)))


def test_advantages_at_lambda_zero_are_td_errors():
    args = rollout(2)
    close(gae(**args, lambda_=0.0), args["r_t"] + args["discount_t"] * args["v_t"] - args["v_tm1"])


@pytest.mark.parametrize("n", [9, 10, 12])
def test_as_many_steps_as_there_are_is_monte_carlo(n):
    args = targets_of(rollout(3))
    close(n_step_returns(**args, n=n), discounted_returns(**args))


def test_one_step_is_the_td_target():
    args = targets_of(rollout(4))
    close(n_step_returns(**args, n=1), args["r_t"] + args["discount_t"] * args["v_t"])


def test_lambda_returns_are_the_mixture_of_n_step_returns():
    args = targets_of(rollout(5))
    mixture = 0.7**8 * n_step_returns(**args, n=9)
    for n in range(1, 9):
        mixture += (1 - 0.7) * 0.7 ** (n - 1) * n_step_returns(**args, n=n)
    close(lambda_returns(**args, lambda_=0.7), mixture)


@each_lambda
def test_vtrace_on_policy_is_the_lambda_return_and_its_advantage(lambda_):
    """Espeholt et al. (2018), remark 1: on-policy, V-trace is the n-step Bellman target."""
    args = rollout(6)
    result = vtrace(**args, rho_tm1=np.ones_like(args["r_t"]), lambda_=lambda_)
    close(result.target, lambda_returns(**targets_of(args), lambda_=lambda_))
    close(result.advantage, gae(**args, lambda_=lambda_))


def test_vtrace_of_actions_that_the_policy_never_takes_learns_nothing():
    args = rollout(7)
    result = vtrace(**args, rho_tm1=np.zeros_like(args["r_t"]))
    np.testing.assert_array_equal(result.target, args["v_tm1"])
    np.testing.assert_array_equal(result.advantage, np.zeros_like(args["r_t"]))


def test_the_fixed_point_of_vtrace_is_the_value_of_the_clipped_policy():
    """Espeholt et al. (2018), theorem 1, on one state with two actions: E_μ of the target is V where V = V^{π_ρ̄}."""
    policy, behaviour, rewards, discount = np.array([0.9, 0.1]), np.array([0.3, 0.7]), np.array([1.0, -2.0]), 0.8
    ratio = policy / behaviour
    clipped = np.minimum(1.0, ratio) * behaviour
    clipped /= clipped.sum()
    value = np.float32((clipped @ rewards) / (1 - discount))
    actions = np.array(list(np.ndindex(2, 2, 2))).T  # every sequence of three actions, [3, 8]
    constant = np.full(actions.shape, value)
    result = vtrace(
        r_t=rewards[actions].astype(np.float32),
        discount_t=np.full(actions.shape, np.float32(discount)),
        v_tm1=constant,
        v_t=constant,
        rho_tm1=ratio[actions].astype(np.float32),
    )
    close(np.asarray(result.target) @ behaviour[actions].prod(axis=0), np.full(3, value), rtol=1e-5)


@each_lambda
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_retrace_on_policy_is_the_lambda_return(lambda_, ratio):
    """Where Q(s, a) = E_π Q(s, ·). Greater ratios are cut to one."""
    args = rollout(8)
    q_tm1 = args.pop("v_tm1")
    result = retrace(**args, q_tm1=q_tm1, rho_tm1=np.full_like(q_tm1, ratio), lambda_=lambda_)
    close(result, lambda_returns(**args, lambda_=lambda_))


@pytest.mark.parametrize(("ratio", "lambda_"), [(0.0, 1.0), (1.0, 0.0)])
def test_retrace_without_traces_is_expected_sarsa(ratio, lambda_):
    args = rollout(9)
    q_tm1 = args.pop("v_tm1")
    result = retrace(**args, q_tm1=q_tm1, rho_tm1=np.full_like(q_tm1, ratio), lambda_=lambda_)
    close(result, args["r_t"] + args["discount_t"] * args["v_t"])


def test_retrace_leaves_the_true_action_values_as_they_are():
    """Munos et al. (2016), lemma 1: Q^π is a fixed point; sample by sample where rewards and successors are certain."""
    policy, rewards, discount = np.array([0.6, 0.4]), np.array([1.0, -2.0]), 0.8
    value = (policy @ rewards) / (1 - discount)
    q = rewards + discount * value
    actions = np.array(list(np.ndindex(2, 2, 2))).T
    behaviour = np.array([0.2, 0.8])
    result = retrace(
        r_t=rewards[actions].astype(np.float32),
        discount_t=np.full(actions.shape, np.float32(discount)),
        q_tm1=q[actions].astype(np.float32),
        v_t=np.full(actions.shape, np.float32(value)),
        rho_tm1=(policy / behaviour)[actions].astype(np.float32),
    )
    close(result, q[actions])


@each_lambda
@pytest.mark.parametrize("num_actions", [1, 3, 33])
def test_pengs_is_the_lambda_return_of_the_largest_values(lambda_, num_actions):
    args = calls.draw("q_lambda", (9, 4), A=num_actions)
    del args["a_t"]
    q_t = args.pop("q_t")
    close(q_lambda(**args, q_t=q_t, lambda_=lambda_), lambda_returns(**args, v_t=q_t.max(-1), lambda_=lambda_))


@pytest.mark.parametrize("num_actions", [3, 33])
def test_watkins_is_pengs_while_greedy_and_one_step_where_not(num_actions):
    args = calls.draw("q_lambda", (9, 4), A=num_actions)
    del args["a_t"]
    q_t = args["q_t"]
    greedy, least = (x.astype(np.int32) for x in (q_t.argmax(-1), q_t.argmin(-1)))
    close(q_lambda(**args, a_t=greedy, lambda_=0.8), q_lambda(**args, lambda_=0.8))
    one_step = args["r_t"] + args["discount_t"] * q_t.max(-1)
    close(q_lambda(**args, a_t=least, lambda_=0.8), one_step)


def test_a_rollout_of_many_axes_is_as_many_rollouts():
    args = calls.draw("vtrace", (5, 2, 3), 4)
    whole = vtrace(**args)
    for i, j in np.ndindex(2, 3):
        close(whole.target[:, i, j], vtrace(**{k: v[:, i, j] for k, v in args.items()}).target)


# --- rlax --------------------------------------------------------------------------------------------------------


def values_of_one_function(shape=(9,)):
    """rlax knows no truncation within a rollout, and takes v_tm1 one step on for v_t."""
    args = rollout(10, shape=(*shape, 1))
    args = {k: v[:, 0] for k, v in args.items() if k != "truncated"}
    args["discount_t"][3] = 0.0
    return {**args, "v_t": np.append(args["v_tm1"][1:], args["v_t"][-1:])}


@pytest.mark.parametrize("n", [1, 3, 9, 11])
@pytest.mark.needs("rlax")
def test_n_step_returns_agree_with_rlax(rlax, n):
    args = targets_of(values_of_one_function())
    close(n_step_returns(**args, n=n), rlax.n_step_bootstrapped_returns(*args.values(), n))


@each_lambda
@pytest.mark.needs("rlax")
def test_advantages_agree_with_rlax(rlax, lambda_):
    args = values_of_one_function()
    values = np.append(args["v_tm1"], args["v_t"][-1:])
    expected = rlax.truncated_generalized_advantage_estimation(args["r_t"], args["discount_t"], lambda_, values)
    close(gae(**args, lambda_=lambda_), expected)


@each_lambda
@pytest.mark.needs("rlax")
def test_vtrace_agrees_with_rlax(rlax, lambda_):
    args = values_of_one_function()
    rho = np.exp(np.random.default_rng(0).normal(size=9)).astype(np.float32)
    rewards = [args[k] for k in ("v_tm1", "v_t", "r_t", "discount_t")]
    with jax.numpy_dtype_promotion("standard"):  # rlax adds its mask to floats
        expected = rlax.vtrace_td_error_and_advantage(*rewards, rho, lambda_, 0.9, 1.2)
    result = vtrace(**args, rho_tm1=rho, lambda_=lambda_, clip_rho=0.9, clip_pg_rho=1.2)
    close(result.target - args["v_tm1"], expected.errors)
    close(result.advantage, expected.pg_advantage)


@each_lambda
@pytest.mark.needs("rlax")
def test_retrace_agrees_with_rlax(rlax, lambda_):
    rng = np.random.default_rng(0)
    q, (r_t, _) = rng.normal(size=(10, 3)).astype(np.float32), rng.normal(size=(2, 9)).astype(np.float32)
    actions = rng.integers(3, size=10).astype(np.int32)
    policy = rng.dirichlet(np.ones(3), size=10).astype(np.float32)
    behaviour = rng.uniform(0.1, 1, size=10).astype(np.float32)
    discount_t = np.float32([0.9, 0.9, 0.0, 0.9, 0.9, 1.0, 0.9, 0.5, 0.9])
    taken = np.arange(10), actions
    # In rlax the last return goes on with the trace of an action whose own return is its Q: the same as a cut.
    expected = rlax.retrace(
        q[:-1], q[1:], actions[:-1], actions[1:], r_t, discount_t, policy[1:], behaviour[1:], lambda_, eps=0.0
    )
    result = retrace(
        r_t=r_t,
        discount_t=discount_t,
        q_tm1=q[taken][:-1],
        v_t=(policy * q).sum(-1)[1:],
        rho_tm1=(policy[taken] / behaviour)[:-1],
        lambda_=lambda_,
    )
    close(result - q[taken][:-1], expected)


@each_lambda
@pytest.mark.needs("rlax")
def test_q_lambda_agrees_with_rlax(rlax, lambda_):
    args = {k: v[:, 0] for k, v in calls.draw("q_lambda", (9, 1)).items() if k not in ("truncated", "a_t")}
    expected = rlax.q_lambda(np.zeros((9, 3), np.float32), np.zeros(9, np.int32), *args.values(), lambda_)
    close(q_lambda(**args, lambda_=lambda_), expected)
