"""The two forms of the recursion of returns, each on any platform."""

import jax
import pytest


def in_form(name, function):
    """`function` with the form of the recursion that `name` chooses, whatever the platform."""

    def choose(*args, cpu, default):
        return {"sequential": cpu, "logarithmic": default}[name](*args)

    def call(*args, **kwargs):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.lax, "platform_dependent", choose)
            return function(*args, **kwargs)

    return jax.jit(call)
