"""Writing into a large array in place, also under `vmap`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def make_write(axis: int) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """`write(array, new, position)`: overwrite `array` from `position` (int32 scalar) on along `axis` < 0 with `new`."""

    @jax.custom_batching.custom_vmap
    def write(array, new, position):
        return jax.lax.dynamic_update_slice_in_dim(array, new, position, axis=axis)

    @write.def_vmap
    def write_batched(axis_size, batched, array, new, position):
        # JAX's own rule makes a scatter of every batched dynamic_update_slice: a kernel with a bounds check
        # for each row, and no longer in place. With one position for the whole batch, a plain slice will do.
        array, new = (
            x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            for x, is_batched in zip((array, new), batched, strict=False)
        )
        if batched[2]:
            one = lambda a, n, p: jax.lax.dynamic_update_slice_in_dim(a, n, p, axis=axis)
            return jax.vmap(one)(array, new, position), True
        return write(array, new, position), True

    return write
