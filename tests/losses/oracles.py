"""The equations of the papers as plain loops in float64.

An oracle has the signature of the function it stands for. It knows nothing of JAX, of masks or of batches: `looped`
calls the equation of one transition for each leading position. Weights that are 0 are skipped, not multiplied by, so
what they weight may be anything.
"""

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
    """Q-learning whose bootstrap is pulled towards repeating the action, as in rlax, where that is legal."""
    best = q_t[first_argmax(q_t)]
    repeated = best if q_t[a_tm1] == -np.inf else q_t[a_tm1]
    bootstrap = weighted(1 - action_gap_scale, best) + weighted(action_gap_scale, repeated)
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


@looped({"logits": 2, "atoms": 1})
def categorical_mean(logits, atoms):
    return [_mean(atoms, of_action) for of_action in logits]


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


@looped({"logits_t": 1, "q_t": 2})
def soft_value(logits_t, q_t, temperature):
    """Christodoulou (2019), eq. 10, with the lesser of the critics."""
    probs = np.exp(logits_t - max(logits_t)) / sum(np.exp(logits_t - max(logits_t)))
    return sum(p * (min(q) - temperature * np.log(p)) for p, q in zip(probs, q_t, strict=True) if p > 0)


@looped({"log_prob_t": 0})
def sac_temperature(log_prob_t, log_temperature, target_entropy):
    """Haarnoja et al. (2018b), eq. 18."""
    return -np.exp(float(log_temperature)) * (log_prob_t + target_entropy)
