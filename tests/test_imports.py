"""The arrows between the modules, each held in a process of its own."""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_by(statement: str) -> set[str]:
    code = f"import sys, jax, jax.numpy, numpy\nbefore = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    return set(run(code).split())


def own_modules(statement: str) -> set[str]:
    return {name for name in loaded_by(statement) if name.startswith("jaxrl.")}


def test_importing_the_package_loads_little():
    """Nothing beside jax and the standard library: subpackages and their dependencies are imported at first use."""
    new = loaded_by("import jaxrl")
    assert "jaxrl" in new
    assert {name for name in new if name.partition(".")[0] not in sys.stdlib_module_names} == {"jaxrl"}


@pytest.mark.parametrize("module", ["losses", "returns", "distributions", "exploration", "schedules"])
def test_the_libraries_import_jax_alone(module):
    new = {name.partition(".")[0] for name in loaded_by(f"import jaxrl.{module}")}
    assert "jaxrl" in new
    foreign = (
        {name for name in new if not name.startswith("_")}
        - set(sys.stdlib_module_names)
        - {"jaxrl", "jax", "jaxlib", "ml_dtypes", "opt_einsum", "numpy", "scipy"}
    )
    assert not foreign
    own = {".".join(name.split(".")[:2]) for name in own_modules(f"import jaxrl.{module}")}
    assert own <= {"jaxrl._src", "jaxrl.losses", "jaxrl.returns", "jaxrl.distributions", "jaxrl.exploration", "jaxrl.schedules"}


def test_the_learner_knows_no_agent_and_nothing_knows_the_experiment():
    learner = own_modules("import jaxrl.learner")
    assert {"jaxrl.learner", "jaxrl.rollout"} <= learner
    assert not any(name.startswith(("jaxrl.agents", "jaxrl.presets", "jaxrl.envs")) for name in learner)
    every = "import jaxrl.agents, jaxrl.presets, jaxrl.networks, jaxrl.envs, jaxrl.vectorization"
    modules = own_modules(every)
    assert {"jaxrl.agents", "jaxrl.envs"} <= modules
    assert not any(name.startswith(("jaxrl.experiment", "jaxrl.cli")) for name in modules)


def test_agents_know_neither_environments_nor_the_learner():
    modules = own_modules("import jaxrl.agents")
    assert "jaxrl.agents._ppo" in modules
    assert not modules & {"jaxrl.envs", "jaxrl.learner", "jaxrl.presets", "jaxrl.networks"}


def test_every_public_name_is_there():
    code = "import jaxrl; print(*(name for name in jaxrl.__all__ if getattr(jaxrl, name) is not None))"
    assert {"train", "make_learner", "vectorize", "agents", "networks"} <= set(run(code).split())


def test_an_unknown_name_is_an_attribute_error():
    import jaxrl

    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = jaxrl.nonsense
    assert "train" in dir(jaxrl)
