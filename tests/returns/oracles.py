"""The equations of returns as plain loops in float64, as in `tests.losses.oracles`: `by_column` calls the equation of one
rollout for each column of `[T, ...]`."""

import numpy as np

from tests.losses.oracles import weighted


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
