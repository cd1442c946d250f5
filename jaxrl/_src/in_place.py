"""Write into a large array in place, also under `vmap`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def make_write(axis: int) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Return `write(array, new, position)`, which writes `new` into `array` at `position`, int32 scalar, along `axis` < 0."""

    @jax.custom_batching.custom_vmap
    def write(array, new, position):
        return jax.lax.dynamic_update_slice_in_dim(array, new, position, axis=axis)

    @write.def_vmap
    def write_batched(axis_size, batched, array, new, position):
        # JAX's own rule turns every batched dynamic_update_slice into a scatter: a kernel with a bounds check
        # for each row, and not in place. With one position for the whole batch, one slice is enough.
        array, new = (
            x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            for x, is_batched in zip((array, new), batched, strict=False)
        )
        if batched[2]:
            one = lambda a, n, p: jax.lax.dynamic_update_slice_in_dim(a, n, p, axis=axis)
            return jax.vmap(one)(array, new, position), True
        return write(array, new, position), True

    return write
