"""The building blocks of all networks: initialisers, the encoder of observations, and a multilayer perceptron."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrl._src.checks import check_choice, check_size
from jaxrl.distributions import mask_illegal
from jaxrl.networks.noisy import NoisyDense
from jaxrl.networks.normalization import BatchRenorm
from jaxrl.networks.storage import DTYPES, gradient_stored, product_for, stored
from jaxrl.spaces import ACTION_MASK, Box, Dict, Discrete, MultiDiscrete, Space, num_choices, split_action_mask

ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "silu": nn.silu, "gelu": nn.gelu, "elu": nn.elu}

Initializer = Callable[..., jax.Array]
_LECUN: Initializer = nn.initializers.lecun_normal()  # flax's own default


def orthogonal(scale: float) -> Initializer:
    """An initialiser for matrices with orthogonal rows or columns of length `scale` (Saxe et al. 2014).

    It applies Gram-Schmidt to normal random numbers, twice per column for accuracy in float32, in full precision on every device.
    flax's own initialiser calls LAPACK's QR. Batched by `vmap`, that can hang on a CPU with two cores (jaxlib 0.10.2), and it is
    slow on a GPU.
    """

    product = partial(jnp.matmul, precision="highest")

    def init(key, shape, dtype=jnp.float32):
        rows, columns = shape
        tall = jax.random.normal(key, (max(shape), min(shape)), dtype)

        def orthonormalize(i, q):
            column = jax.lax.dynamic_index_in_dim(tall, i, axis=1, keepdims=False)
            for _ in range(2):
                column = column - product(q, product(column, q))
            column = column / jnp.linalg.norm(column)
            return jax.lax.dynamic_update_index_in_dim(q, column, i, axis=1)

        q = jax.lax.fori_loop(0, min(shape), orthonormalize, jnp.zeros_like(tall))
        return jnp.asarray(scale, dtype) * (q if rows >= columns else q.T)

    return init


def _convolve(dtype: str, x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """Convolve `[N, H, W, C]` with `[3, 3, C, F]` to `[N, H - 2, W - 2, F]` in one matrix product of all patches, for `nn.Conv`.

    The gradient of the product is stored in `dtype`.

    XLA's own convolution is slow in a loop on a CPU: with it, a DQN update in MinAtar's Breakout takes four times as long.
    Batched over seeds by `vmap`, it becomes a grouped convolution.
    """
    height, width = (size - 2 for size in x.shape[1:3])
    patches = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return gradient_stored(jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, kernel.shape[-1]), dtype)


class Encoder(nn.Module):
    """Observations `[..., *obs_shape]` to features `[..., F]`.

    - `Discrete` and `MultiDiscrete`: one-hot vectors, concatenated over the components.
    - `Box`: flattened, after a 3×3 convolution for each entry of `channels` if it is an image `[H, W, C]`. Integers are scaled
      from their bounds to [0, 1], unless `scale_observations` is False; bools are 0 and 1. 32-bit bounds at the limits of the
      dtype count as no bounds.
    - `Dict`: the encodings of all entries, concatenated in the order of their names.
    """

    space: Space
    channels: Sequence[int] = ()
    dtype: str = "float32"
    layer_norm: bool = False
    scale_observations: bool = True

    @nn.compact
    def __call__(self, obs: Any) -> jax.Array:
        if isinstance(self.space, Discrete):
            return jax.nn.one_hot(obs, self.space.n, dtype=jnp.float32)
        if isinstance(self.space, MultiDiscrete):
            parts = [jax.nn.one_hot(obs[..., i], n, dtype=jnp.float32) for i, n in enumerate(self.space.nvec)]
            return jnp.concatenate(parts, axis=-1)
        if isinstance(self.space, Dict):
            options = (self.channels, self.dtype, self.layer_norm, self.scale_observations)
            features = [Encoder(space, *options, name=f"obs_{name}")(obs[name]) for name, space in self.space.items()]
            return jnp.concatenate(features, axis=-1)
        batch = obs.shape[: obs.ndim - len(self.space.shape)]
        x = _scale_integers(self.space, obs) if self.scale_observations else obs.astype(jnp.float32)
        for channels in self.channels if _is_image(self.space) else ():
            product = partial(_convolve, self.dtype)
            conv = nn.Conv(
                channels, (3, 3), padding="VALID", dtype=jnp.float32, conv_general_dilated_cls=lambda product=product: product
            )
            x = stored(conv(x), self.dtype)
            x = gradient_stored(nn.relu(_normalize(x) if self.layer_norm else x), self.dtype)
        return x.reshape(*batch, -1)


def _is_image(space: Space) -> bool:
    return isinstance(space, Box) and len(space.shape) == 3


def _scale_integers(box: Box, obs: jax.Array) -> jax.Array:
    """Scale bounded integers from their bounds to [0, 1]; cast anything else to float32."""
    x = obs.astype(jnp.float32)
    if not np.issubdtype(box.dtype, np.integer):
        return x
    limits = np.iinfo(box.dtype)
    unbounded = (box.low == limits.min) | (box.high == limits.max) if limits.bits >= 32 else np.zeros(box.shape, bool)
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    low, size = np.where(unbounded, 0.0, low), np.where(unbounded | (low == high), 1.0, high - low)
    return (x - _constant(low, x)) / _constant(size, x)


def _constant(value: np.ndarray, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(value, like.dtype), like.shape)


class MLP(nn.Module):
    """An encoder, hidden layers, and a linear layer of `num_outputs` whose weights have the scale `output_scale`.

    The entry `"action_mask"` of observations is not encoded. If `action_space` is given, there is one output per choice, and
    the outputs of illegal actions are set to −inf. Otherwise the mask is ignored.

    Inputs, parameters, arithmetic and outputs are float32. The results of convolutions and hidden layers are stored in `dtype`.

    With `training=True`, dropout is active and batch renormalisation uses the statistics of the batch.
    """

    space: Space
    num_outputs: int | None  # None: no linear layer, the output is the last hidden layer
    hidden: Sequence[int]
    activation: str
    channels: Sequence[int] = ()
    orthogonal: bool = False
    output_scale: float = 1.0
    dtype: str = "float32"
    layer_norm: bool = False
    scale_observations: bool = True
    action_space: Space | None = None
    noisy: bool = False  # dense layers of the type NoisyDense, with their own initialisation
    dropout: float = 0.0
    batch_renorm: bool = False

    @nn.compact
    def __call__(self, obs: Any, training: bool = False) -> jax.Array:
        space, features = split_action_mask(self.space)[0], split_action_mask(obs)[0]
        x = Encoder(space, self.channels, self.dtype, self.layer_norm, self.scale_observations)(features)
        kernel_init = _kernel_init(self.orthogonal, np.sqrt(2.0))
        x = hidden_layers(
            x, self.hidden, self.activation, dtype=self.dtype, layer_norm=self.layer_norm, kernel_init=kernel_init,
            noisy=self.noisy, dropout=self.dropout, batch_renorm=self.batch_renorm, training=training,
        )  # fmt: skip
        if self.num_outputs is None:
            return x
        kernel_init = _kernel_init(self.orthogonal, self.output_scale)
        out = dense(self.num_outputs, kernel_init=kernel_init, noisy=self.noisy)(x)
        return mask_illegal_actions(out, obs, self.action_space)


def _kernel_init(is_orthogonal: bool, scale: float) -> Initializer:
    return orthogonal(scale) if is_orthogonal else _LECUN


def dense(
    width: int, *, dtype: str = "float32", noisy: bool = False, kernel_init: Initializer = _LECUN, **options: Any
) -> nn.Module:
    """A dense layer with options of `nn.Dense`. The gradient of its product is stored in `dtype`. Call it in a compact method."""
    if noisy:  # has its own initialisation
        return NoisyDense(width, dtype=dtype)
    return nn.Dense(width, dtype=jnp.float32, dot_general=product_for(dtype), kernel_init=kernel_init, **options)


def hidden_layers(
    x: jax.Array,
    widths: Sequence[int],
    activation: str,
    *,
    dtype: str,
    layer_norm: bool,
    kernel_init: Initializer = _LECUN,
    noisy: bool = False,
    dropout: float = 0.0,
    batch_renorm: bool = False,
    training: bool = False,
) -> jax.Array:
    """Dense layers, each followed by an optional LayerNorm (Ba et al. 2016) and an activation. Call it in a compact method.

    Dropout is before the LayerNorm, as in DroQ (Hiraoka et al. 2022). Batch renormalisation is of the input and after each
    activation, as in CrossQ (Bhatt et al. 2024).
    """
    renormalize = lambda x: BatchRenorm()(x, training) if batch_renorm else x
    x = renormalize(x)
    for width in widths:
        x = stored(dense(width, dtype=dtype, kernel_init=kernel_init, noisy=noisy)(x), dtype)
        x = nn.Dropout(dropout, deterministic=not training)(x) if dropout else x
        x = gradient_stored(renormalize(ACTIVATIONS[activation](_normalize(x) if layer_norm else x)), dtype)
    return x


def _normalize(x: jax.Array) -> jax.Array:
    """LayerNorm. Call it in a compact method."""
    return nn.LayerNorm(dtype=jnp.float32)(x)


def mask_illegal_actions(values: jax.Array, obs: Any, action_space: Space | None) -> jax.Array:
    """Set logits or action values `[..., num_choices]` to −inf where the entry `"action_mask"` of `obs` is False.

    If no action is legal, e.g. after the end of a game, no action is masked, so that results stay finite. This applies to each
    component of a `MultiDiscrete` separately. Without the entry or without `action_space`, `values` are returned unchanged.
    """
    legal = _legal_actions(obs, action_space)
    return values if legal is None else mask_illegal(values, legal)


def mask_illegal_rows(values: jax.Array, obs: Any, action_space: Space) -> jax.Array:
    """`mask_illegal_actions` for values `[..., A, K]` with K numbers for each action, such as quantiles."""
    legal = _legal_actions(obs, action_space)
    return values if legal is None else mask_illegal(values, jnp.broadcast_to(legal[..., None], values.shape))


def _legal_actions(obs: Any, action_space: Space | None) -> jax.Array | None:
    """The action mask, bool `[..., num_choices]`, with all actions where it has none; None without a mask."""
    legal = split_action_mask(obs)[1]
    if legal is None or action_space is None:
        return None
    parts = np.cumsum(action_space.nvec if isinstance(action_space, MultiDiscrete) else [])[:-1]
    masks = [part | ~jnp.any(part, axis=-1, keepdims=True) for part in jnp.split(legal, parts, axis=-1)]
    return jnp.concatenate(masks, axis=-1)


# --- checks of a builder's arguments


def check_body(
    observation_space: Space,
    *,
    hidden: Sequence[int],
    activation: str,
    channels: Sequence[int],
    dtype: str,
    layer_norm: bool,
    scale_observations: bool,
) -> dict[str, Any]:
    """Check the arguments that all builders share, and return them as arguments of `MLP`."""
    if not isinstance(observation_space, Space):
        raise TypeError(f"observation_space must be a space, such as env.observation_space; got {observation_space!r}")
    if isinstance(observation_space, Dict) and set(observation_space) == {ACTION_MASK}:
        raise ValueError(f"observation_space must have an entry beside {ACTION_MASK!r}, to be read; got {observation_space}")
    for name, widths in (("hidden", hidden), ("channels", channels)):
        if not isinstance(widths, Sequence) or isinstance(widths, str):
            raise TypeError(f"{name} must be a tuple of ints, such as (64, 64); got {widths!r}")
        for width in widths:
            check_size(name, width)
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("dtype", dtype, DTYPES)
    if channels:
        _check_images(split_action_mask(observation_space)[0], tuple(channels))
    return {
        "space": observation_space,
        "hidden": tuple(hidden),
        "activation": activation,
        "channels": tuple(channels),
        "dtype": dtype,
        "layer_norm": layer_norm,
        "scale_observations": scale_observations,
    }


def _check_images(space: Space, channels: tuple[int, ...]) -> None:
    images = [box for box in _boxes(space) if len(box.shape) == 3]
    if not images:
        raise ValueError(f"channels={channels} needs observations [H, W, C], got {space}")
    for image in images:
        if min(image.shape[:2]) <= 2 * len(channels):
            raise ValueError(
                f"channels={channels}: each 3×3 convolution takes 2 from height and width, which leaves nothing of "
                f"{image}; use fewer than {(min(image.shape[:2]) + 1) // 2} of them"
            )


def _boxes(space: Space) -> list[Box]:
    if isinstance(space, Dict):
        return [box for entry in space.values() for box in _boxes(entry)]
    return [space] if isinstance(space, Box) else []


def check_action_mask(observation_space: Space, action_space: Discrete | MultiDiscrete) -> None:
    """Raise ValueError unless the observation's entry `"action_mask"`, if there is one, fits the actions."""
    mask = split_action_mask(observation_space)[1] if isinstance(observation_space, Mapping) else None
    shape = (num_choices(action_space),)
    if mask is not None and (mask.shape, mask.dtype) != (shape, np.dtype(bool)):
        raise ValueError(
            f"the observation's entry {ACTION_MASK!r} must be a Box of bools of shape {list(shape)} for the actions "
            f"{action_space}, got {mask}"
        )
