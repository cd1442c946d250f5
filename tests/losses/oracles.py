"""The equations of the papers as plain loops in float64, and arguments to try them on.

An oracle has the signature of the function it stands for. It knows nothing of JAX, of masks or of batches:
`looped` calls the equation of one transition for each leading position, `by_column` that of one rollout for
each column of `[T, ...]`. Weights that are 0 are skipped, not multiplied by, so what they weigh may be anything.
"""

from typing import NamedTuple

import numpy as np

# --- How an equation is spread over the leading positions --------------------------------------------------------


def looped(suffixes):
    """A decorator: call the function for each leading position. `suffixes`: an argument's number of own axes, by name."""

    def decorate(equation):
        def function(**args):
            hyper = {k: v for k, v in args.items() if k not in suffixes}
            arrays = {k: np.asarray(v) for k, v in args.items() if k in suffixes}
            arrays = {k: v.astype(np.float64) if v.dtype.kind not in "ib" else v for k, v in arrays.items()}
            leading = max((v.shape[: v.ndim - suffixes[k]] for k, v in arrays.items()), key=len)
            # What has no leading axes (the atoms of a support, say) is the same at every position.
            one = {i: {k: v[i] if v.ndim > suffixes[k] else v for k, v in arrays.items()} for i in np.ndindex(leading)}
            rows = [np.asarray(equation(**one[i], **hyper), np.float64) for i in np.ndindex(leading)]
            return np.reshape(rows, (*leading, *rows[0].shape))

        function.equation = equation
        return function

    return decorate


def by_column(suffixes):
    """A decorator: call the function for each column of `[T, ...]`; what it returns are `[T]`, or a tuple of them."""

    def decorate(equation):
        def function(truncated=None, **args):
            arrays = {k: np.asarray(v) for k, v in args.items() if k in suffixes and v is not None and np.ndim(v)}
            hyper = {k: v for k, v in args.items() if k not in arrays}
            arrays = {k: v.astype(np.float64) if v.dtype.kind not in "ib" else v for k, v in arrays.items()}
            shape = arrays["r_t"].shape
            cut = np.zeros(shape, bool) if truncated is None else np.array(truncated)
            cut[-1] = True
            columns = {}
            for i in np.ndindex(shape[1:]):
                column = {k: v[(slice(None), *i)] for k, v in arrays.items()}
                columns[i] = equation(**column, **hyper, cut=cut[(slice(None), *i)])
            several = isinstance(next(iter(columns.values())), tuple)
            results = []
            for k in range(len(next(iter(columns.values()))) if several else 1):
                result = np.zeros(shape)
                for i, column in columns.items():
                    result[(slice(None), *i)] = column[k] if several else column
                results.append(result)
            return tuple(results) if several else results[0]

        return function

    return decorate


def first_argmax(values):
    best = 0
    for a in range(len(values)):
        if values[a] > values[best]:
            best = a
    return best


def weighted(weight, value):
    return weight * value if weight != 0 else 0.0


# --- Selection ---------------------------------------------------------------------------------------------------


@looped({"values": 1, "index": 0})
def select(values, index):
    return values[index]


# --- Temporal differences ----------------------------------------------------------------------------------------

_TRANSITION = {"a_tm1": 0, "r_t": 0, "discount_t": 0}


@looped({"v_tm1": 0, "r_t": 0, "discount_t": 0, "v_t": 0})
def td_learning(v_tm1, r_t, discount_t, v_t):
    """Sutton & Barto (2018), eq. 6.5."""
    return r_t + weighted(discount_t, v_t) - v_tm1


@looped({**_TRANSITION, "q_tm1": 1, "q_t": 1, "a_t": 0})
def sarsa(q_tm1, a_tm1, r_t, discount_t, q_t, a_t):
    """Sutton & Barto (2018), eq. 6.7."""
    return r_t + weighted(discount_t, q_t[a_t]) - q_tm1[a_tm1]


@looped({**_TRANSITION, "q_tm1": 1, "q_t": 1, "probs_t": 1})
def expected_sarsa(q_tm1, a_tm1, r_t, discount_t, q_t, probs_t):
    """Sutton & Barto (2018), eq. 6.9."""
    expectation = 0.0
    for a in range(len(q_t)):
        expectation += weighted(probs_t[a], q_t[a])
    return r_t + weighted(discount_t, expectation) - q_tm1[a_tm1]


@looped({**_TRANSITION, "q_tm1": 1, "q_t": 1})
def q_learning(q_tm1, a_tm1, r_t, discount_t, q_t):
    """Watkins & Dayan (1992)."""
    return r_t + weighted(discount_t, q_t[first_argmax(q_t)]) - q_tm1[a_tm1]


@looped({**_TRANSITION, "q_tm1": 1, "q_t_value": 1, "q_t_selector": 1})
def double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t_value, q_t_selector):
    """Van Hasselt et al. (2016), eq. 4."""
    return r_t + weighted(discount_t, q_t_value[first_argmax(q_t_selector)]) - q_tm1[a_tm1]


@looped({**_TRANSITION, "q_tm1": 1, "q_t": 1})
def persistent_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, action_gap_scale):
    """Q-learning whose bootstrap is pulled towards repeating the action, as in rlax."""
    bootstrap = weighted(1 - action_gap_scale, q_t[first_argmax(q_t)]) + weighted(action_gap_scale, q_t[a_tm1])
    return r_t + weighted(discount_t, bootstrap) - q_tm1[a_tm1]


def softmax(logits):
    exponentials = [np.exp(x - max(logits)) for x in logits]
    return [e / sum(exponentials) for e in exponentials]


@looped({**_TRANSITION, "q_tm1": 1, "q_t": 1, "q_tm1_target": 1})
def munchausen_q_learning(
    q_tm1, a_tm1, r_t, discount_t, q_t, q_tm1_target, temperature=0.03, munchausen_scale=0.9, log_policy_min=-1.0
):
    """Vieillard et al. (2020), Munchausen DQN with its clipped log-policy."""

    def scaled_log_policy(q, a):  # τ ln π(a): the stable form of appendix B
        return (q[a] - max(q)) - temperature * np.log(sum(np.exp((x - max(q)) / temperature) for x in q))

    bonus = min(max(scaled_log_policy(q_tm1_target, a_tm1), log_policy_min), 0.0)
    soft_value = 0.0
    for a, probability in enumerate(softmax([x / temperature for x in q_t])):
        if probability > 0:
            soft_value += probability * (q_t[a] - scaled_log_policy(q_t, a))
    return r_t + munchausen_scale * bonus + weighted(discount_t, soft_value) - q_tm1[a_tm1]


# --- Distributions of returns ------------------------------------------------------------------------------------


@looped({"atoms_p": 1, "probs": 1, "atoms_q": 1})
def categorical_l2_project(atoms_p, probs, atoms_q):
    """Bellemare et al. (2017), algorithm 1, for supports with any spacing: each atom is shared by its two neighbours."""
    result = np.zeros(len(atoms_q))
    for z, mass in zip(atoms_p, probs, strict=True):
        if z <= atoms_q[0]:
            result[0] += mass
        elif z >= atoms_q[-1]:
            result[-1] += mass
        else:
            lower = max(k for k in range(len(atoms_q)) if atoms_q[k] <= z)
            share = (z - atoms_q[lower]) / (atoms_q[lower + 1] - atoms_q[lower])
            result[lower] += mass * (1 - share)
            result[lower + 1] += mass * share
    return result


@looped({"atoms_p": 1, "probs": 1, "atoms_q": 1})
def cramer_projection(atoms_p, probs, atoms_q):
    """The same as Rowland et al. (2018) characterise it: of all distribution functions that step only at the atoms, the
    one nearest in L2 is between two atoms the mean of the one projected."""
    cumulative = []
    for k in range(len(atoms_q) - 1):
        low, high = atoms_q[k], atoms_q[k + 1]
        # ∫ 1{z ≤ x} dx over (low, high), for each atom z.
        mean = sum(mass * (high - min(max(z, low), high)) / (high - low) for z, mass in zip(atoms_p, probs, strict=True))
        cumulative.append(mean)
    return np.diff([0.0, *cumulative, sum(probs)])


def _mean(atoms, logits):
    return sum(p * z for p, z in zip(softmax(logits), atoms, strict=True))


def _categorical(q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, selector, atoms):
    if discount_t == 0:  # whatever the successor's distribution: all of it lies at the reward
        target = categorical_l2_project.equation([r_t], [1.0], atoms)
    else:
        a = first_argmax([_mean(atoms, logits) for logits in selector])
        target = categorical_l2_project.equation([r_t + discount_t * z for z in atoms], softmax(q_logits_t[a]), atoms)
    logits = q_logits_tm1[a_tm1]
    log_normaliser = max(logits) + np.log(sum(np.exp(x - max(logits)) for x in logits))
    return -sum(weighted(m, x - log_normaliser) for m, x in zip(target, logits, strict=True))


@looped({**_TRANSITION, "q_logits_tm1": 2, "q_logits_t": 2, "atoms": 1})
def categorical_q_learning(q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, atoms):
    """Bellemare et al. (2017), algorithm 1."""
    return _categorical(q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, q_logits_t, atoms)


@looped({**_TRANSITION, "q_logits_tm1": 2, "q_logits_t": 2, "q_logits_t_selector": 2, "atoms": 1})
def categorical_double_q_learning(q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, q_logits_t_selector, atoms):
    return _categorical(q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, q_logits_t_selector, atoms)


@looped({"quantiles": 1, "tau": 1, "targets": 1})
def quantile_regression(quantiles, tau, targets, kappa=1.0):
    """Dabney et al. (2018b), eq. 3; with κ = 0, the quantile regression loss of Dabney et al. (2018a), eq. 8."""
    loss = 0.0
    for i in range(len(quantiles)):
        for j in range(len(targets)):
            u = targets[j] - quantiles[i]
            asymmetry = abs(tau[i] - (1.0 if u < 0 else 0.0))
            if kappa == 0:
                loss += asymmetry * abs(u) / len(targets)
            elif abs(u) <= kappa:
                loss += asymmetry * 0.5 * u**2 / kappa / len(targets)
            else:
                loss += asymmetry * kappa * (abs(u) - 0.5 * kappa) / kappa / len(targets)
    return loss


@looped({**_TRANSITION, "q_quantiles_tm1": 2, "tau_tm1": 1, "q_quantiles_t": 2, "q_quantiles_t_selector": 2})
def implicit_quantile_q_learning(
    q_quantiles_tm1, tau_tm1, a_tm1, r_t, discount_t, q_quantiles_t, q_quantiles_t_selector=None, kappa=1.0
):
    """Dabney et al. (2018b), eq. 2 and 3, algorithm 1."""
    selector = q_quantiles_t if q_quantiles_t_selector is None else q_quantiles_t_selector
    a = first_argmax([sum(samples) / len(samples) for samples in selector])
    targets = [r_t + weighted(discount_t, z) for z in q_quantiles_t[a]]
    return quantile_regression.equation(q_quantiles_tm1[a_tm1], tau_tm1, targets, kappa)


def quantile_q_learning(q_quantiles_tm1, **args):
    """Dabney et al. (2018a), algorithm 1, the quantile midpoints of lemma 2."""
    n = np.shape(q_quantiles_tm1)[-1]
    args = {k: v for k, v in args.items() if v is not None}
    return implicit_quantile_q_learning(
        q_quantiles_tm1=q_quantiles_tm1, tau_tm1=np.array([(i + 0.5) / n for i in range(n)]), **args
    )


@looped({"value": 0, "advantage": 1})
def dueling(value, advantage):
    """Wang et al. (2016), eq. 9."""
    return [value + advantage[a] - sum(advantage) / len(advantage) for a in range(len(advantage))]


# --- Policies ----------------------------------------------------------------------------------------------------


@looped({"log_prob_t": 0, "advantage_t": 0})
def policy_gradient(log_prob_t, advantage_t):
    """Williams (1992), eq. 4."""
    return -log_prob_t * advantage_t


@looped({"logits": 1})
def entropy(logits):
    """Shannon's, in nats."""
    return -sum(p * np.log(p) for p in softmax(logits) if p > 0)


@looped({"log_prob_t": 0, "old_log_prob_t": 0, "advantage_t": 0})
def ppo_clip(log_prob_t, old_log_prob_t, advantage_t, clip_range=0.2):
    """Schulman et al. (2017), eq. 7, by the cases of figure 1: clipping matters only where it makes the objective smaller."""
    with np.errstate(over="ignore"):
        ratio = np.exp(log_prob_t - old_log_prob_t)
    if advantage_t > 0:
        return -min(ratio, 1 + clip_range) * advantage_t
    return -weighted(advantage_t, max(ratio, 1 - clip_range))


@looped({"v_tm1": 0, "old_v_tm1": 0, "target_tm1": 0})
def ppo_value_loss(v_tm1, old_v_tm1, target_tm1, clip_range=0.2):
    """The value loss of PPO's first implementation (OpenAI baselines, ppo2)."""
    clipped = old_v_tm1 + min(max(v_tm1 - old_v_tm1, -clip_range), clip_range)
    return 0.5 * max((v_tm1 - target_tm1) ** 2, (clipped - target_tm1) ** 2)


# --- Continuous actions ------------------------------------------------------------------------------------------


@looped({"a_t": 1, "dqda_t": 1})
def deterministic_policy_gradient(a_t, dqda_t, max_norm=None):
    """Silver et al. (2014), eq. 9, as a loss: its gradient in the action is −dq/da."""
    norm = np.sqrt(sum(x**2 for x in dqda_t))
    scale = 1.0 if max_norm is None or norm <= max_norm else max_norm / norm
    return -sum(a * scale * g for a, g in zip(a_t, dqda_t, strict=True))


@looped({"q_tm1": 1, "r_t": 0, "discount_t": 0, "q_t": 1, "log_prob_t": 0})
def soft_td_error(q_tm1, r_t, discount_t, q_t, log_prob_t, temperature):
    """Haarnoja et al. (2018b), the error within eq. 6."""
    soft_value = min(q_t) - temperature * log_prob_t
    return [r_t + weighted(discount_t, soft_value) - q for q in q_tm1]


@looped({"log_prob_t": 0, "q_t": 1})
def sac_actor(log_prob_t, q_t, temperature):
    """Haarnoja et al. (2018b), eq. 9, with the lesser of the critics."""
    return temperature * log_prob_t - min(q_t)


@looped({"log_prob_t": 0})
def sac_temperature(log_prob_t, log_temperature, target_entropy):
    """Haarnoja et al. (2018b), eq. 18."""
    return -np.exp(float(log_temperature)) * (log_prob_t + target_entropy)


# --- Returns -----------------------------------------------------------------------------------------------------


@by_column({"r_t", "discount_t", "v_t"})
def n_step_returns(r_t, discount_t, v_t, n, cut):
    """Sutton & Barto (2018), eq. 7.1; the episode's own end and a cut may come sooner."""
    result = np.zeros(len(r_t))
    for t in range(len(r_t)):
        weight = 1.0
        for k in range(t, t + n):
            result[t] += weight * r_t[k]
            weight *= discount_t[k]
            if weight == 0:
                break
            if cut[k] or k == t + n - 1:
                result[t] += weight * v_t[k]
                break
    return result


@by_column({"r_t", "discount_t", "v_t", "lambda_"})
def lambda_returns(r_t, discount_t, v_t, cut, lambda_=1.0):
    """The mixture of n-step returns with the weights (1 − λ_n) Π λ_k (Sutton & Barto 2018, eq. 12.3, for λ that varies)."""
    lambda_ = np.full(len(r_t), lambda_)
    result = np.zeros(len(r_t))
    for t in range(len(r_t)):
        rewards, discount, remaining = 0.0, 1.0, 1.0
        for k in range(t, len(r_t)):
            rewards += discount * r_t[k]
            discount *= discount_t[k]
            last = cut[k] or discount == 0
            share = remaining if last else remaining * (1 - lambda_[k])
            result[t] += weighted(share, rewards + weighted(discount, v_t[k]))
            remaining -= share
            if last or remaining == 0:
                break
    return result


def discounted_returns(**args):
    """Sutton & Barto (2018), eq. 3.8."""
    return n_step_returns(**args, n=len(args["r_t"]))


@by_column({"r_t", "discount_t", "v_tm1", "v_t"})
def generalized_advantage_estimation(r_t, discount_t, v_tm1, v_t, cut, lambda_=0.95):
    """Schulman et al. (2016), eq. 16: Σ_l (γλ)^l δ_{t+l}."""
    result = np.zeros(len(r_t))
    for t in range(len(r_t)):
        weight = 1.0
        for k in range(t, len(r_t)):
            result[t] += weight * (r_t[k] + weighted(discount_t[k], v_t[k]) - v_tm1[k])
            weight *= discount_t[k] * lambda_
            if cut[k] or weight == 0:
                break
    return result


@by_column({"r_t", "discount_t", "v_tm1", "v_t", "rho_tm1"})
def vtrace(r_t, discount_t, v_tm1, v_t, rho_tm1, cut, lambda_=1.0, clip_rho=1.0, clip_c=1.0, clip_pg_rho=1.0):
    """Espeholt et al. (2018), eq. 1: v_s = V(x_s) + Σ_t γ^{t−s} (Π_{i=s}^{t−1} c_i) δ_t V, c_i with the λ of remark 2; the
    advantage of section 4.2, ρ_s (r_s + γ v_{s+1} − V(x_s))."""
    length = len(r_t)
    target, advantage = np.array(v_tm1, np.float64), np.zeros(length)
    for s in range(length):
        weight = 1.0
        for t in range(s, length):
            delta = r_t[t] + weighted(discount_t[t], v_t[t]) - v_tm1[t]
            target[s] += weight * weighted(np.minimum(clip_rho, rho_tm1[t]), delta)
            weight *= weighted(discount_t[t] * lambda_, np.minimum(clip_c, rho_tm1[t]))
            if cut[t] or weight == 0:
                break
    for s in range(length):
        bootstrap = v_t[s] if cut[s] else weighted(lambda_, target[s + 1]) + weighted(1 - lambda_, v_t[s])
        error = r_t[s] + weighted(discount_t[s], bootstrap) - v_tm1[s]
        advantage[s] = weighted(np.minimum(clip_pg_rho, rho_tm1[s]), error)
    return target, advantage


@by_column({"r_t", "discount_t", "q_tm1", "v_t", "rho_tm1"})
def retrace(r_t, discount_t, q_tm1, v_t, rho_tm1, cut, lambda_=1.0):
    """Munos et al. (2016), eq. 3 with the traces of eq. 4's last row: Q(x, a) + Σ_t γ^t (Π_{s=1}^t c_s) δ_t, where
    δ_t = r_t + γ E_π Q(x_{t+1}, ·) − Q(x_t, a_t). The first δ's −Q(x, a) cancels the one before the sum."""
    result = np.zeros(len(r_t))
    for t in range(len(r_t)):
        weight = 1.0
        for k in range(t, len(r_t)):
            result[t] += weight * (r_t[k] + weighted(discount_t[k], v_t[k]) - (q_tm1[k] if k > t else 0.0))
            if cut[k]:
                break
            weight *= weighted(discount_t[k] * lambda_, np.minimum(1.0, rho_tm1[k + 1]))
            if weight == 0:
                break
    return result


@by_column({"r_t", "discount_t", "q_t", "a_t"})
def q_lambda(r_t, discount_t, q_t, lambda_, cut, a_t=None):
    """Peng's (Peng & Williams 1996) and Watkins's (1989) Q(λ), as mixtures of n-step returns; Watkins's goes on only
    through greedy actions."""
    best = np.array([np.max(q) for q in q_t])
    if a_t is not None:
        lambda_ = np.array([lambda_ if q_t[t][a_t[t]] == best[t] else 0.0 for t in range(len(r_t))])
    return lambda_returns(r_t=r_t, discount_t=discount_t, v_t=best, lambda_=lambda_, truncated=cut)


# --- Arguments ---------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """How to call one function: its arguments by name, each a kind and its own axes after the leading ones."""

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
PROBLEMS = {
    "select": Problem({"values": ("real", "A"), "index": ("action", "")}),
    "greedy": Problem({"values": ("real", "A")}),
    "td_learning": Problem({"v_tm1": ("real", ""), **_REWARDS, "v_t": ("real", "")}, learns=("v_tm1",)),
    "sarsa": Problem({**_Q, "q_t": ("real", "A"), "a_t": ("action", "")}, learns=("q_tm1",)),
    "expected_sarsa": Problem({**_Q, "q_t": ("real", "A"), "probs_t": ("probability", "A")}, learns=("q_tm1",)),
    "q_learning": Problem({**_Q, "q_t": ("real", "A")}, learns=("q_tm1",)),
    "double_q_learning": Problem({**_Q, "q_t_value": ("real", "A"), "q_t_selector": ("real", "A")}, learns=("q_tm1",)),
    "persistent_q_learning": Problem(
        {**_Q, "q_t": ("real", "A")},
        {"action_gap_scale": 0.3},
        ({"action_gap_scale": 0.0}, {"action_gap_scale": 1.0}),
        learns=("q_tm1",),
    ),
    "munchausen_q_learning": Problem(
        {**_Q, "q_t": ("real", "A"), "q_tm1_target": ("real", "A")},
        {},
        ({"temperature": 0.5, "munchausen_scale": 0.4, "log_policy_min": -0.2}, {"temperature": 2.0, "log_policy_min": -50.0}),
        learns=("q_tm1",),
    ),
    "categorical_l2_project": Problem(
        {"atoms_p": ("real", "P"), "probs": ("probability", "P"), "atoms_q": ("shared support", "K")},
    ),
    "categorical_q_learning": Problem({**_CATEGORICAL, "atoms": ("shared support", "K")}, learns=("q_logits_tm1",)),
    "categorical_double_q_learning": Problem(
        {**_CATEGORICAL, "q_logits_t_selector": ("real", "AK"), "atoms": ("shared support", "K")}, learns=("q_logits_tm1",)
    ),
    "quantile_regression": Problem(
        {"quantiles": ("real", "N"), "tau": ("fraction", "N"), "targets": ("real", "M")},
        {},
        ({"kappa": 0}, {"kappa": 0.25}, {"kappa": 3.0}),
        learns=("quantiles",),
    ),
    "quantile_q_learning": Problem(
        {**_QUANTILES, "q_quantiles_t": ("real", "AM")}, {}, ({"kappa": 0.0}, {"kappa": 0.5}), learns=("q_quantiles_tm1",)
    ),
    "implicit_quantile_q_learning": Problem(
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
    "dueling": Problem({"value": ("real", ""), "advantage": ("real", "A")}),
    "policy_gradient": Problem({"log_prob_t": ("log probability", ""), "advantage_t": ("real", "")}, learns=("log_prob_t",)),
    "entropy": Problem({"logits": ("real", "A")}),
    "ppo_clip": Problem(
        {"log_prob_t": ("log probability", ""), "old_log_prob_t": ("log probability", ""), "advantage_t": ("real", "")},
        {},
        ({"clip_range": 0.5},),
        learns=("log_prob_t",),
    ),
    "ppo_value_loss": Problem(
        {"v_tm1": ("real", ""), "old_v_tm1": ("real", ""), "target_tm1": ("real", "")},
        {},
        ({"clip_range": 0.7},),
        learns=("v_tm1",),
    ),
    "deterministic_policy_gradient": Problem(
        {"a_t": ("real", "m"), "dqda_t": ("real", "m")}, {}, ({"max_norm": 1.0},), learns=("a_t",)
    ),
    "soft_td_error": Problem(
        {"q_tm1": ("real", "C"), **_REWARDS, "q_t": ("real", "C"), "log_prob_t": ("log probability", "")},
        {"temperature": 0.2},
        learns=("q_tm1",),
    ),
    "sac_actor": Problem({"log_prob_t": ("log probability", ""), "q_t": ("real", "C")}, {"temperature": 0.2}),
    "sac_temperature": Problem(
        {"log_prob_t": ("log probability", ""), "log_temperature": ("shared real", "")},
        {"target_entropy": -2.0},
        learns=("log_temperature",),
    ),
    "lambda_returns": Problem({**_REWARDS, "v_t": ("real", ""), **_FLAG}, {"lambda_": 0.7}, time=True),
    "discounted_returns": Problem({**_REWARDS, "v_t": ("real", ""), **_FLAG}, time=True),
    "n_step_returns": Problem({**_REWARDS, "v_t": ("real", ""), **_FLAG}, {"n": 3}, time=True),
    "generalized_advantage_estimation": Problem({**_REWARDS, "v_tm1": ("real", ""), "v_t": ("real", ""), **_FLAG}, time=True),
    "vtrace": Problem(
        {**_REWARDS, "v_tm1": ("real", ""), "v_t": ("real", ""), "rho_tm1": ("ratio", ""), **_FLAG},
        {"lambda_": 0.7},
        ({"clip_rho": 1.5, "clip_c": 0.8, "clip_pg_rho": 2.0},),
        time=True,
    ),
    "retrace": Problem(
        {**_REWARDS, "q_tm1": ("real", ""), "v_t": ("real", ""), "rho_tm1": ("ratio", ""), **_FLAG}, {"lambda_": 0.7}, time=True
    ),
    "q_lambda": Problem({**_REWARDS, "q_t": ("real", "A"), "a_t": ("action", ""), **_FLAG}, {"lambda_": 0.7}, time=True),
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
    for argument, (kind, own) in PROBLEMS[name].arguments.items():
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


def check(name, functions, shapes, kwargs, seed, rtol=1e-5, atol=2e-5):
    """Assert that `functions[name]` computes what the oracle of that name does."""
    leading, sizes = shapes
    args = draw(name, leading, seed, **sizes)
    kwargs = {**PROBLEMS[name].kwargs, **kwargs}
    expected = globals()[name](**args, **kwargs)
    result = functions[name](**args, **kwargs)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=atol)
