"""Whether the hyperparameters that an experiment sets or sweeps have an effect on it."""

import jax
from jax.interpreters.partial_eval import dce_jaxpr

from jaxrl.experiment.config import Config
from jaxrl.learner import train
from jaxrl.presets import Preset


def check_effects(config: Config, preset: Preset) -> None:
    """Check that the runs depend on every hyperparameter in `config.hparams` and `config.swept`.

    An option of the agent may switch hyperparameters off, as `munchausen=False` does with `munchausen_scale`. A sweep of such a
    hyperparameter would train the same runs again and again. The traced program tells which ones have an effect.

    Args:
      config: the configuration.
      preset: `config.preset()`.

    Raises:
      ValueError: if a hyperparameter has no effect.
    """
    names = sorted({*config.hparams, *config.swept})
    if not names:
        return

    def run(key, *values):
        hparams = preset.hparams._replace(**dict(zip(names, values, strict=True)))
        return train(key, preset.learner, preset.num_iterations, hparams)

    jaxpr = jax.make_jaxpr(run)(jax.random.key(0), *[0.0] * len(names)).jaxpr
    _, (_, *used) = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    if without := [name for name, is_used in zip(names, used, strict=True) if not is_used]:
        has, it = ("have", "them") if len(without) > 1 else ("has", "it")
        raise ValueError(
            f"{', '.join(without)} {has} no effect with these settings: leave {it} out, or choose the options that use {it} "
            f"(`jaxrl train {config.settings.algorithm} --help` lists them)"
        )
