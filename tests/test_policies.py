"""Policy heads: units of a Box, densities by numerical integration, frequencies of samples, gradients by finite differences."""

import functools
from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import jaxrl
from jaxrl._src.checks import check_network_output
from jaxrl.distributions import categorical, diagonal_gaussian, tanh_gaussian
from jaxrl.policies import box_units, deterministic_head, policy_head
from jaxrl.types import Box, Dict, Discrete, MultiDiscrete

ONE_IN_A_MILLION = 1e-6
INF = np.inf

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)

HEADS = {
    "discrete": (Discrete(5), False),
    "multidiscrete": (MultiDiscrete((3, 2, 4)), False),
    "equal parts": (MultiDiscrete((3, 3)), False),
    "box": (Box(15, 30, (2,)), False),
    "squashed": (Box(np.array([[-1, 15]]), np.array([[1, 30]]), (1, 2)), True),
}


@functools.cache
def head_of(name):
    """The head's functions are compiled as a whole, since one operation after the other would take longer."""
    action_space, squash = HEADS[name]
    head = policy_head(action_space, squash=squash)
    names = ("sample", "mode", "to_action", "log_prob", "entropy", "kl")
    return action_space, head._replace(**{name: jax.jit(getattr(head, name)) for name in names})


def random_params(head, batch_shape=(), seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), head.params_spec(batch_shape))


# --- all heads


@pytest.mark.parametrize("batch", [(), (4,), (3, 4)])
@pytest.mark.parametrize("name", HEADS)
def test_shapes_and_dtypes(name, batch):
    action_space, head = head_of(name)
    params, noise = random_params(head, batch), head.noise(jax.random.key(0), batch)
    for raw_action in (head.sample(params, noise), head.mode(params)):
        action = head.to_action(raw_action)
        assert (action.shape, action.dtype) == ((*batch, *action_space.shape), action_space.dtype)
        assert raw_action.shape == (*batch, *np.reshape(action, (*batch, -1)).shape[len(batch) :] * bool(action_space.shape))
        for x in (head.log_prob(params, raw_action), head.entropy(params, raw_action), head.kl(params, params)):
            assert (x.shape, x.dtype) == (batch, jnp.float32)


@pytest.mark.parametrize("name", HEADS)
def test_each_element_of_a_batch_is_treated_alone(name):
    _, head = head_of(name)
    params, noise = random_params(head, (6,)), head.noise(jax.random.key(0), (6,))

    def outputs(params, noise):
        raw_action = head.sample(params, noise)
        return head.to_action(raw_action), head.log_prob(params, raw_action), head.entropy(params, raw_action)

    jax.tree.map(close, jax.vmap(outputs)(params, noise), outputs(params, noise))
    assert len(np.unique(outputs(params, noise)[1])) > 1


@pytest.mark.parametrize("name", HEADS)
def test_gradients_agree_with_finite_differences(name):
    _, head = head_of(name)
    params, other, noise = random_params(head), random_params(head, seed=1), head.noise(jax.random.key(0), ())
    raw_action = head.sample(random_params(head, seed=2), noise)
    for function in (
        lambda params: head.log_prob(params, raw_action),
        lambda params: head.kl(params, other),
        # A squashed head's entropy is reparameterised: its derivative is along the sample, not at a fixed raw action.
        lambda params: head.entropy(params, head.sample(params, noise)),
    ):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        of_flat = jax.jit(lambda x, f=function, unravel=unravel: f(unravel(x)))
        steps = 1e-2 * np.eye(len(flat), dtype=np.float32)
        flat = np.asarray(flat)
        differences = [(of_flat(flat + step) - of_flat(flat - step)) / 2e-2 for step in steps]
        np.testing.assert_allclose(jax.jit(jax.grad(of_flat))(flat), differences, atol=2e-3)


@pytest.mark.parametrize("name", HEADS)
def test_a_policy_diverges_from_others_alone(name):
    _, head = head_of(name)
    params, other = random_params(head), random_params(head, seed=1)
    close(head.kl(params, params), 0.0)
    samples = head.sample(
        jax.tree.map(lambda x: jnp.broadcast_to(x, (20_000, *x.shape)), params), head.noise(jax.random.key(0), (20_000,))
    )
    ratio = jax.jit(jax.vmap(lambda x: head.log_prob(params, x) - head.log_prob(other, x)))(samples)
    deviation = 5 * float(jnp.std(ratio)) / np.sqrt(20_000)
    assert abs(float(jnp.mean(ratio)) - float(head.kl(params, other))) < deviation
    assert deviation < 0.25 * float(head.kl(params, other))


# --- discrete actions


def probabilities_of(logits, nvec):
    """For each part, the probabilities of its choices."""
    return [scipy.special.softmax(part) for part in np.split(np.asarray(logits, np.float64), np.cumsum(nvec)[:-1])]


@pytest.mark.parametrize("nvec", [(3, 2, 4), (3, 3), (1, 5), (40, 2)])
def test_samples_have_the_frequencies_of_the_softmax_and_illegal_ones_none(nvec):
    head, rng, num = policy_head(MultiDiscrete(nvec)), np.random.default_rng(0), 20_000
    legal = rng.uniform(size=sum(nvec)) < 0.7
    legal[np.cumsum(nvec) - 1] = True  # at least one of each part
    logits = jnp.where(legal, rng.normal(size=sum(nvec)).astype(np.float32), -jnp.inf)
    noise = head.noise(jax.random.key(0), (num,))
    actions = np.asarray(jax.jit(head.sample)(jnp.broadcast_to(logits, (num, sum(nvec))), noise))
    assert actions.dtype == np.int32
    for i, p in enumerate(probabilities_of(logits, nvec)):
        counts = np.bincount(actions[:, i], minlength=len(p))
        assert counts.shape == p.shape
        assert not counts[p == 0].any()
        if np.sum(p > 0) > 1:
            assert scipy.stats.chisquare(counts[p > 0], num * p[p > 0]).pvalue > ONE_IN_A_MILLION
    # Two parts are independent of each other.
    table = np.zeros((nvec[0], nvec[1]))
    np.add.at(table, (actions[:, 0], actions[:, 1]), 1)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    assert min(table.shape) == 1 or scipy.stats.chi2_contingency(table).pvalue > ONE_IN_A_MILLION


def test_parts_of_a_multidiscrete_are_independent_categoricals():
    nvec = (3, 2, 4)
    head = policy_head(MultiDiscrete(nvec))
    logits, other = random_params(head), random_params(head, seed=1)
    p, q = probabilities_of(logits, nvec), probabilities_of(other, nvec)
    for action in np.ndindex(nvec):
        expected = sum(np.log(part[a]) for part, a in zip(p, action, strict=True))
        close(head.log_prob(logits, jnp.asarray(action, jnp.int32)), expected)
    close(head.entropy(logits, None), sum(scipy.stats.entropy(part) for part in p))
    close(head.kl(logits, other), sum(scipy.stats.entropy(*pair) for pair in zip(p, q, strict=True)))
    assert head.mode(logits).tolist() == [int(part.argmax()) for part in p]


def test_a_multidiscrete_of_one_part_is_a_discrete():
    one, same = policy_head(MultiDiscrete((5,))), policy_head(Discrete(5))
    params, noise = random_params(same, (4,)), same.noise(jax.random.key(0), (4,))
    np.testing.assert_array_equal(one.noise(jax.random.key(0), (4,)), noise)
    action = same.sample(params, noise)
    np.testing.assert_array_equal(one.sample(params, noise), action[:, None])
    np.testing.assert_array_equal(one.log_prob(params, action[:, None]), same.log_prob(params, action))


@pytest.mark.parametrize("name", ["discrete", "multidiscrete", "equal parts"])
def test_illegal_actions_leave_everything_finite(name):
    _, head = head_of(name)
    logits = random_params(head, (4,))
    first = jnp.zeros(logits.shape, bool).at[:, 0].set(True)
    masked = jnp.where(first, -jnp.inf, logits)
    raw_action = head.mode(masked)

    def outputs(logits):
        masked = jnp.where(first, -jnp.inf, logits)
        return head.log_prob(masked, raw_action), head.entropy(masked, raw_action), head.kl(masked, masked)

    assert all(np.all(np.isfinite(x)) for x in outputs(logits))
    for i in range(3):
        gradient = jax.jit(jax.grad(lambda logits, i=i: jnp.sum(outputs(logits)[i])))(logits)
        assert np.all(np.isfinite(gradient))
        assert not np.any(gradient[:, 0])


# --- a Box


@pytest.mark.parametrize(
    ("box", "origin", "scale"),
    [
        (Box(-1, 1, (3,)), [0, 0, 0], [1, 1, 1]),
        (Box(15, 30, (1,)), [22.5], [7.5]),
        (Box(-0.01, 0.01, ()), [0], [0.01]),
        (Box(np.array([[0], [-4]]), np.array([[10], [2]]), (2, 1)), [5, -1], [5, 3]),
        (Box(np.array([3, -INF, -INF, 2]), np.array([INF, 3, INF, 2]), (4,)), [4, 2, 0, 2], [1, 1, 1, 0]),
        (Box(-3e38, 3e38, (1,)), [0], [3e38]),
    ],
)
@pytest.mark.parametrize("squash", [False, True])
def test_policies_start_in_the_middle_with_a_spread_in_units_of_the_box(box, origin, scale, squash):
    for got, expected in zip(box_units(box), (origin, scale), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    if squash and not box.bounded:
        return
    num, head = 4_000, policy_head(box, squash=squash)
    mean, log_std = jax.tree.map(lambda x: jnp.zeros(x.shape), head.params_spec((num,)))
    close(head.to_action(head.mode((mean, log_std)))[0].reshape(-1), np.float32(origin))
    raw_action = head.sample((mean, log_std - 1.5), head.noise(jax.random.key(0), (num,)))
    action = np.asarray(head.to_action(raw_action), np.float64)
    assert np.all((action >= box.low) & (action <= box.high))
    # A standard deviation of e^-1.5 = 0.22 in normalised units; clipping takes nothing of it and the tanh a little.
    spread = (action.reshape(num, -1) / np.maximum(scale, 1e-9)).std(0)
    np.testing.assert_allclose(spread, np.where(np.equal(scale, 0), 0, np.exp(-1.5)), rtol=0.1)


@pytest.mark.parametrize("squash", [False, True])
def test_bounds_are_reached_and_not_left(squash):
    box = Box(np.array([0.1, -7]), np.array([0.3, 5]), (2,))
    head = policy_head(box, squash=squash)
    raw_action = jnp.linspace(-40, 40, 2_001)[:, None] * jnp.ones((1, 2))
    action = np.asarray(head.to_action(raw_action))
    np.testing.assert_array_equal(action.min(0), box.low)
    np.testing.assert_array_equal(action.max(0), box.high)
    assert np.all(np.diff(action, axis=0) >= -1e-5)  # up to the rounding of the tanh


def test_actions_within_a_unit_box_keep_their_bits():
    raw_action = jax.random.normal(jax.random.key(0), (100, 3), jnp.float32)
    action = policy_head(Box(-1, 1, (3,))).to_action(raw_action)
    np.testing.assert_array_equal(action, np.clip(raw_action, -1, 1))
    np.testing.assert_array_equal(policy_head(Box(-1, 1, (3,)), squash=True).to_action(raw_action), jnp.tanh(raw_action))
    free = policy_head(Box(-INF, INF, (3,))).to_action(raw_action)
    np.testing.assert_array_equal(free, raw_action)


@pytest.mark.parametrize("squash", [False, True])
def test_the_density_of_one_dimension_integrates_to_one(squash):
    head = policy_head(Box(15, 30, (1,)), squash=squash)
    params = (np.float32([0.3]), np.float32([-0.4]))
    raw_action = np.linspace(-12, 12, 200_001, dtype=np.float32)[:, None]
    batch = jax.tree.map(lambda x: jnp.broadcast_to(x, raw_action.shape), params)
    density = np.exp(np.asarray(head.log_prob(batch, raw_action), np.float64))
    x = np.tanh(raw_action.astype(np.float64)) if squash else raw_action.astype(np.float64)
    np.testing.assert_allclose(np.trapezoid(density, x[:, 0]), 1.0, atol=1e-4)


def test_log_probabilities_and_entropies_of_a_box_are_those_of_the_normal():
    head = policy_head(Box(15, 30, (3,)))
    (mean, log_std), raw_action = random_params(head), np.float32([0.5, -3, 1])
    normal = scipy.stats.norm(np.asarray(mean, np.float64), np.exp(np.asarray(log_std, np.float64)))
    close(head.log_prob((mean, log_std), raw_action), normal.logpdf(raw_action).sum())
    close(head.entropy((mean, log_std), raw_action), normal.entropy().sum())


def test_a_squashed_log_probability_is_exact_where_the_tanh_rounds_to_one():
    head, params = policy_head(Box(-2, 2, (1,)), squash=True), (jnp.array([0.0]), jnp.array([0.0]))
    for u in (0.0, 1.0, 9.0, 20.0, -50.0):
        log_slope = 2 * (np.log(2) - abs(u) - np.log1p(np.exp(-2 * abs(u))))
        np.testing.assert_allclose(head.log_prob(params, jnp.array([u])), scipy.stats.norm.logpdf(u) - log_slope, rtol=1e-6)


def test_a_squashed_entropy_estimate_has_the_right_mean():
    num, head = 40_000, policy_head(Box(15, 30, (1,)), squash=True)
    params = jax.tree.map(lambda x: jnp.full((num, 1), x), (0.3, -0.4))
    raw_action = head.sample(params, head.noise(jax.random.key(0), (num,)))
    estimates = np.asarray(head.entropy(params, raw_action))
    u = np.linspace(-8, 8, 100_001)
    density = scipy.stats.norm.pdf(u, 0.3, np.exp(-0.4))
    expected = -np.trapezoid(density * (np.log(density) - np.log1p(-(np.tanh(u) ** 2))), u)
    assert abs(estimates.mean() - expected) < 5 * estimates.std() / np.sqrt(num)
    # The same as −log π, of which it is the part that is not known exactly.
    assert abs(estimates.mean() + np.mean(head.log_prob(params, raw_action))) < 0.02


def test_the_gradient_of_a_reparameterised_sample_and_its_log_probability():
    """What SAC differentiates: E[log π(a) − Q(a)] along the sample."""
    head, noise = policy_head(Box(15, 30, (2,)), squash=True), jnp.array([0.7, -1.2])
    flat, unravel = jax.flatten_util.ravel_pytree(random_params(head))

    @jax.jit
    def loss(flat):
        raw_action = head.sample(unravel(flat), noise)
        return head.log_prob(unravel(flat), raw_action) - jnp.sum(jnp.square(head.to_action(raw_action) - 21.0)) / 50

    steps = 1e-2 * np.eye(len(flat), dtype=np.float32)
    differences = [(loss(flat + step) - loss(flat - step)) / 2e-2 for step in steps]
    np.testing.assert_allclose(jax.grad(loss)(flat), differences, atol=5e-3, rtol=5e-3)


def test_the_gradient_of_a_squashed_entropy_is_the_same_for_a_stored_sample():
    """REINFORCE and PPO evaluate it at the raw action of a rollout, where the noise is what counts as given."""
    head, params, noise = policy_head(Box(15, 30, (2,)), squash=True), (jnp.array([0.3, -1]), jnp.array([-0.4, 0])), jnp.ones(2)
    raw_action = head.sample(params, noise)
    stored = jax.grad(lambda params: head.entropy(params, raw_action))(params)
    along = jax.grad(lambda params: tanh_gaussian.entropy(params, noise))(params)
    jax.tree.map(close, stored, along)


def test_the_noise_of_an_action_is_that_which_it_was_drawn_with():
    head = policy_head(Box(15, 30, (2,)), squash=True)
    params, noise = (jnp.array([0.3, -1]), jnp.array([-0.4, 0])), jnp.array([1.5, -0.2])
    close(head.noise_of(params, head.sample(params, noise)), noise)


# --- deterministic


def test_a_deterministic_policy_fills_its_box():
    box = Box(np.array([15, -INF, 2, -INF]), np.array([30, INF, INF, 4]), (4,))
    head = deterministic_head(box)
    assert head.params_spec((4,)).shape == (4, 4)
    output = jnp.array([[x] * 4 for x in (0.0, 50.0, -50.0, 0.5)])
    above = lambda x: np.log1p((np.e - 1) * np.exp(x))  # the distance from a single bound, 1 at 0
    expected = [[22.5 + 7.5 * np.tanh(x), x, 2 + above(x), 4 - above(-x)] for x in (0.0, 50.0, -50.0, 0.5)]
    np.testing.assert_allclose(head.to_action(head.mode(output)), expected, rtol=1e-6)
    assert head.to_action(head.mode(output)).dtype == jnp.float32
    slope = lambda x: jax.grad(lambda x: jnp.sum(head.to_action(head.mode(x))))(jnp.full(4, x))
    np.testing.assert_allclose(slope(0.5)[:2], [7.5 / np.cosh(0.5) ** 2, 1], rtol=1e-5)
    assert (slope(-3.0) > 0.05).all()  # it finds back from beyond a single bound
    assert (slope(3.0)[2:] > 0.05).all()


def test_exploration_noise_is_in_units_of_the_box_and_clipped_to_it():
    head = deterministic_head(Box(np.array([15, -INF, 2]), np.array([30, INF, INF]), (3,)))
    noise = head.noise(jax.random.key(0), (5_000,))
    assert noise.shape == (5_000, 3)
    assert scipy.stats.kstest(np.asarray(noise[:, 0]), "norm").pvalue > ONE_IN_A_MILLION
    raw_action = head.perturb(head.mode(jnp.zeros((5_000, 3))), 0.5 * noise)
    np.testing.assert_allclose(raw_action, np.clip(0.5 * noise, [-1, -INF, -1], [1, INF, INF]), rtol=1e-6)
    action = np.asarray(head.to_action(raw_action))
    np.testing.assert_allclose(action, np.float32([22.5, 0, 3]) + np.float32([7.5, 1, 1]) * np.asarray(raw_action), rtol=1e-6)
    assert action[:, 0].min() == 15
    assert action[:, 0].max() == 30


def test_random_actions_are_uniform_between_two_bounds_and_the_noise_elsewhere():
    head = deterministic_head(Box(np.array([15, -INF, 2]), np.array([30, INF, INF]), (3,)))
    noise = head.noise(jax.random.key(0), (5_000,))
    raw_action = np.asarray(head.random(noise))
    assert scipy.stats.kstest(raw_action[:, 0], "uniform", (-1, 2)).pvalue > ONE_IN_A_MILLION
    assert np.all(np.diff(raw_action[np.argsort(noise[:, 0]), 0]) >= 0)  # the larger the noise, the larger the action
    np.testing.assert_array_equal(raw_action[:, 1], noise[:, 1])
    np.testing.assert_array_equal(raw_action[:, 2], np.maximum(noise[:, 2], -1))


# --- as before, and what does not fit


def test_heads_use_the_distributions_noise():
    key = jax.random.key(0)
    np.testing.assert_array_equal(policy_head(Discrete(3)).noise(key, (2, 4)), categorical.noise(key, (2, 4, 3)))
    np.testing.assert_array_equal(policy_head(Box(0, 1, (3,))).noise(key, (2, 4)), diagonal_gaussian.noise(key, (2, 4, 3)))


def test_actions_may_be_bfloat16():
    box = Box(-1, 1, (2,), jnp.bfloat16)
    for head, params in ((deterministic_head(box), jnp.ones(2)), (policy_head(box), (jnp.ones(2), jnp.zeros(2)))):
        assert head.to_action(head.mode(params)).dtype == jnp.bfloat16


def test_the_networks_give_what_the_heads_take():
    for action_space in (Discrete(3), Box(-1, 1, (2, 2))):
        network = jaxrl.networks.policy(Box(0, 1, (2,)), action_space, hidden=(4,))
        out = jax.eval_shape(network.init_with_output, jax.random.key(0), jnp.zeros((6, 2)))[0]
        check_network_output("test", out, policy_head(action_space).params_spec((6,)), "")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: policy_head(Box(0, 5, (2,), np.int32)), "Discrete or MultiDiscrete .* Box of floats, got Box"),
        (lambda: policy_head(Dict({"x": Discrete(2)})), "Box of floats, got Dict"),
        (lambda: policy_head(Discrete(2), squash=True), r"squash=True is for a Box of actions, got Discrete\(2\)"),
        (lambda: policy_head(MultiDiscrete((2, 3)), squash=True), "squash=True is for a Box"),
        (lambda: policy_head(Box(-INF, 1, (2,)), squash=True), "squash=True needs finite bounds"),
        (lambda: deterministic_head(Discrete(2)), r"deterministic policy needs a Box of floats .* got Discrete\(2\)"),
        (lambda: deterministic_head(Box(0, 5, (2,), np.int32)), "Box of floats"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("nvec", [(3, 2), (2, 2)])
def test_logits_of_another_width_are_refused(nvec):
    head, raw_action = policy_head(MultiDiscrete(nvec)), jnp.zeros((4, 2), int)
    wrong, right = jnp.zeros((4, 6)), jnp.zeros((4, sum(nvec)))
    message = rf"MultiDiscrete\({nvec[0]}, {nvec[1]}\).* must be \[\.\.\., {sum(nvec)}\], got \(4, 6\)"
    for call in (
        lambda: head.sample(wrong, right), lambda: head.sample(right, wrong), lambda: head.mode(wrong),
        lambda: head.log_prob(wrong, raw_action), lambda: head.entropy(wrong, raw_action), lambda: head.kl(right, wrong),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(call)


@pytest.mark.parametrize(
    ("out", "shapes"),
    [
        (jnp.zeros((4, 3)), r"\[4, 3\]"),
        ((jnp.zeros((4, 3)), jnp.zeros((4, 1))), r"\(\[4, 3\], \[4, 1\]\)"),
        ((), r"\(\)"),
        ({"mean": jnp.zeros((4, 3))}, r"\{'mean': \[4, 3\]\}"),
    ],
)
def test_a_network_output_of_another_form_is_refused(out, shapes):
    spec = (policy_head(Discrete(3)).params_spec((4,)), jax.ShapeDtypeStruct((4,), jnp.float32))
    check_network_output("ppo", (jnp.zeros((4, 3)), jnp.zeros(4)), spec, "")
    with pytest.raises(ValueError, match=rf"ppo: .* must return shapes \(\[4, 3\], \[4\]\), but it returns {shapes}. Use"):
        check_network_output("ppo", out, spec, "Use networks.policy(..., value=True).")
