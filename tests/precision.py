"""How exactly matrices are multiplied here, and what tests may then expect of a result."""

import os

import jax
from jax import lax

EMULATED = bool(os.environ.get("JAXRL_TEST_TF32"))
# The relative error of a product, at most: both factors have 10 bits after the first, and some kernels cut off the others.
TF32 = 2.0**-9


def tolerance(rtol, atol=0.0):
    """Keywords of `np.testing.assert_allclose`, to compare what one update computes from matrix products with float64.

    Args:
      rtol, atol: in full precision, where they are returned as they are. In TF32 a layer forth and back, twice, may be off by
        4 × TF32 of the result, and by TF32 where terms of the size 1 cancel.

    What many updates compute is compared in full precision instead, by the fixture `full_precision`: in TF32 their errors grow,
    and a greedy action can become another.
    """
    if not (EMULATED or jax.default_backend() == "gpu"):
        return {"rtol": rtol, "atol": atol}
    return {"rtol": max(rtol, 4 * TF32), "atol": max(atol, TF32)}


def emulate_tf32():
    """Multiply matrices on a CPU as a GPU does by default: of the 23 bits of a float32 factor, 10 are kept; sums have all.

    As on a GPU, `precision="highest"` turns that off.
    """
    from jax._src.interpreters import mlir
    from jax._src.lax.lax import _dot_general_lower
    from jax._src.lib.mlir.dialects import hlo

    def round_off(x):
        return hlo.reduce_precision(x, exponent_bits=mlir.i32_attr(8), mantissa_bits=mlir.i32_attr(10))

    def lower(ctx, *factors, precision, **options):
        if precision in (None, (lax.Precision.DEFAULT,) * 2):
            factors = [round_off(x) if aval.dtype == "float32" else x for x, aval in zip(factors, ctx.avals_in, strict=True)]
        return _dot_general_lower(ctx, *factors, precision=precision, platform="cpu", **options)

    mlir.register_lowering(lax.dot_general_p, lower, platform="cpu")
