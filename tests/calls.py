"""How to call each public function of `losses` and `returns`, with arguments to try it on."""

from functools import partial
from typing import NamedTuple

import numpy as np

from jaxrl import losses, returns
from tests.losses import oracles as of_losses
from tests.returns import oracles as of_returns


class Call(NamedTuple):
    """The arguments of one function by name, each with a kind and its own axes after the leading ones."""

    arguments: dict[str, tuple[str, str]]
    kwargs: dict = {}  # noqa: RUF012
    variants: tuple[dict, ...] = ()  # other hyperparameters to try
    time: bool = False  # leading axes are [T, ...]
    learns: tuple[str, ...] = ()  # the arguments with a gradient; none named: all floats

    @property
    def floats(self):
        return [name for name, (kind, _) in self.arguments.items() if kind not in ("action", "flag")]


SIZES = {"A": 3, "K": 5, "P": 4, "N": 4, "M": 3, "L": 2, "C": 2, "m": 3}
_Q = {"q_tm1": ("real", "A"), "a_tm1": ("action", ""), "r_t": ("real", ""), "discount_t": ("discount", "")}
_CATEGORICAL = {**_Q, "q_logits_t": ("real", "AK")}
_CATEGORICAL = {("q_logits_tm1" if k == "q_tm1" else k): (("real", "AK") if k == "q_tm1" else v) for k, v in _CATEGORICAL.items()}
_QUANTILES = {"q_quantiles_tm1": ("real", "AN"), **{k: v for k, v in _Q.items() if k != "q_tm1"}}
_REWARDS = {"r_t": ("real", ""), "discount_t": ("discount", "")}
_FLAG = {"truncated": ("flag", "")}

# One entry for each public function. "shared" arguments have no leading axes.
CALLS = {
    "select": Call({"values": ("real", "A"), "index": ("action", "")}),
    "greedy": Call({"values": ("real", "A")}),
    "td_learning": Call({"v_tm1": ("real", ""), **_REWARDS, "v_t": ("real", "")}, learns=("v_tm1",)),
    "sarsa": Call({**_Q, "q_t": ("real", "A"), "a_t": ("action", "")}, learns=("q_tm1",)),
    "expected_sarsa": Call({**_Q, "q_t": ("real", "A"), "probs_t": ("probability", "A")}, learns=("q_tm1",)),
    "q_learning": Call({**_Q, "q_t": ("real", "A")}, learns=("q_tm1",)),
    "double_q_learning": Call({**_Q, "q_t_value": ("real", "A"), "q_t_selector": ("real", "A")}, learns=("q_tm1",)),
    "persistent_q_learning": Call(
        {**_Q, "q_t": ("real", "A")},
        {"action_gap_scale": 0.3},
        ({"action_gap_scale": 0.0}, {"action_gap_scale": 1.0}),
        learns=("q_tm1",),
    ),
    "munchausen_q_learning": Call(
        {**_Q, "q_t": ("real", "A"), "q_tm1_target": ("real", "A")},
        {},
        ({"temperature": 0.5, "munchausen_scale": 0.4, "log_policy_min": -0.2}, {"temperature": 2.0, "log_policy_min": -50.0}),
        learns=("q_tm1",),
    ),
    "categorical_l2_project": Call(
        {"atoms_p": ("real", "P"), "probs": ("probability", "P"), "atoms_q": ("shared support", "K")},
    ),
    "categorical_mean": Call({"logits": ("real", "AK"), "atoms": ("shared support", "K")}),
    "categorical_q_learning": Call({**_CATEGORICAL, "atoms": ("shared support", "K")}, learns=("q_logits_tm1",)),
    "categorical_double_q_learning": Call(
        {**_CATEGORICAL, "q_logits_t_selector": ("real", "AK"), "atoms": ("shared support", "K")}, learns=("q_logits_tm1",)
    ),
    "quantile_regression": Call(
        {"quantiles": ("real", "N"), "tau": ("fraction", "N"), "targets": ("real", "M")},
        {},
        ({"kappa": 0}, {"kappa": 0.25}, {"kappa": 3.0}),
        learns=("quantiles",),
    ),
    "quantile_q_learning": Call(
        {**_QUANTILES, "q_quantiles_t": ("real", "AM")}, {}, ({"kappa": 0.0}, {"kappa": 0.5}), learns=("q_quantiles_tm1",)
    ),
    "implicit_quantile_q_learning": Call(
        {
            "q_quantiles_tm1": ("real", "AN"),
            "tau_tm1": ("fraction", "N"),
            **{k: v for k, v in _Q.items() if k != "q_tm1"},
            "q_quantiles_t": ("real", "AM"),
            "q_quantiles_t_selector": ("real", "AL"),
        },
        {},
        ({"kappa": 0.0}, {"kappa": 0.5}),
        learns=("q_quantiles_tm1",),
    ),
    "dueling": Call({"value": ("real", ""), "advantage": ("real", "A")}),
    "policy_gradient": Call({"log_prob_t": ("log probability", ""), "advantage_t": ("real", "")}, learns=("log_prob_t",)),
    "entropy": Call({"logits": ("real", "A")}),
    "ppo_clip": Call(
        {"log_prob_t": ("log probability", ""), "old_log_prob_t": ("log probability", ""), "advantage_t": ("real", "")},
        {},
        ({"clip_range": 0.5},),
        learns=("log_prob_t",),
    ),
    "ppo_value_loss": Call(
        {"v_tm1": ("real", ""), "old_v_tm1": ("real", ""), "target_tm1": ("real", "")},
        {},
        ({"clip_range": 0.7},),
        learns=("v_tm1",),
    ),
    "deterministic_policy_gradient": Call(
        {"a_t": ("real", "m"), "dqda_t": ("real", "m")}, {}, ({"max_norm": 1.0},), learns=("a_t",)
    ),
    "soft_td_error": Call(
        {"q_tm1": ("real", "C"), **_REWARDS, "q_t": ("real", "C"), "log_prob_t": ("log probability", "")},
        {"temperature": 0.2},
        learns=("q_tm1",),
    ),
    "sac_actor": Call({"log_prob_t": ("log probability", ""), "q_t": ("real", "C")}, {"temperature": 0.2}),
    "soft_value": Call({"logits_t": ("real", "A"), "q_t": ("real", "AC")}, {"temperature": 0.2}, learns=("logits_t",)),
    "sac_temperature": Call(
        {"log_prob_t": ("log probability", ""), "log_temperature": ("shared real", "")},
        {"target_entropy": -2.0},
        learns=("log_temperature",),
    ),
    "lambda_returns": Call({**_REWARDS, "v_t": ("real", ""), **_FLAG}, {"lambda_": 0.7}, time=True),
    "discounted_returns": Call({**_REWARDS, "v_t": ("real", ""), **_FLAG}, time=True),
    "n_step_returns": Call({**_REWARDS, "v_t": ("real", ""), **_FLAG}, {"n": 3}, time=True),
    "generalized_advantage_estimation": Call({**_REWARDS, "v_tm1": ("real", ""), "v_t": ("real", ""), **_FLAG}, time=True),
    "vtrace": Call(
        {**_REWARDS, "v_tm1": ("real", ""), "v_t": ("real", ""), "rho_tm1": ("ratio", ""), **_FLAG},
        {"lambda_": 0.7},
        ({"clip_rho": 1.5, "clip_c": 0.8, "clip_pg_rho": 2.0},),
        time=True,
    ),
    "retrace": Call(
        {**_REWARDS, "q_tm1": ("real", ""), "v_t": ("real", ""), "rho_tm1": ("ratio", ""), **_FLAG}, {"lambda_": 0.7}, time=True
    ),
    "q_lambda": Call({**_REWARDS, "q_t": ("real", "A"), "a_t": ("action", ""), **_FLAG}, {"lambda_": 0.7}, time=True),
}


def draw(name, leading, seed=0, dtype=np.float32, **sizes):
    """Arguments of the function `name`, by name, with these leading axes."""
    sizes = {**SIZES, **sizes}
    rng = np.random.default_rng(seed)
    kinds = {
        "real": lambda shape: rng.normal(size=shape),
        "action": lambda shape: rng.integers(sizes["A"], size=shape),
        "flag": lambda shape: rng.random(shape) < 0.25,
        "discount": lambda shape: rng.choice([0.0, 0.5, 0.9, 1.0], size=shape),
        "probability": lambda shape: rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]),
        "log probability": lambda shape: -rng.exponential(0.5, size=shape),
        "ratio": lambda shape: np.exp(rng.normal(size=shape) * 0.7),
        "fraction": lambda shape: rng.uniform(0.05, 0.95, size=shape),
        "support": lambda shape: np.cumsum(rng.uniform(0.3, 0.8, size=shape)) - 1.7,  # unevenly spaced
    }
    args = {}
    for argument, (kind, own) in CALLS[name].arguments.items():
        shared = kind.startswith("shared ")
        shape = (*(() if shared else leading), *(sizes[axis] for axis in own))
        value = kinds[kind.removeprefix("shared ")](shape)
        kind_dtype = {"action": np.int32, "flag": bool}.get(kind, dtype)
        args[argument] = np.asarray(value, kind_dtype)
    return args


# Leading axes and numbers of everything: the usual, one of each, and more actions than are compared one by one.
SHAPES = (
    ((), SIZES),
    ((5,), {"A": 1, "K": 2, "P": 1, "N": 1, "M": 1, "L": 1, "C": 1, "m": 1}),
    ((2, 3), {"A": 33, "K": 6, "P": 7, "N": 2, "M": 5, "L": 3, "C": 3, "m": 2}),
)


def function(name):
    return getattr(returns if CALLS[name].time else losses, name)


def called(name, **kwargs):
    """The function `name`, with the hyperparameters of its call."""
    return partial(function(name), **{**CALLS[name].kwargs, **kwargs})


def leading(name):
    """Leading axes for it."""
    return (4, 5) if CALLS[name].time else (5,)


def oracle(name):
    return getattr(of_returns if CALLS[name].time else of_losses, name)


def check(name, functions, shapes, kwargs, seed, rtol=1e-5, atol=2e-5):
    """Assert that `functions[name]` computes what the oracle of that name does."""
    leading, sizes = shapes
    args = draw(name, leading, seed, **sizes)
    kwargs = {**CALLS[name].kwargs, **kwargs}
    expected = oracle(name)(**args, **kwargs)
    result = functions[name](**args, **kwargs)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=atol)
