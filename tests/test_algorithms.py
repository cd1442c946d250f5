"""The table of algorithms, and the options read from signatures and docstrings."""

import inspect
from collections.abc import Sequence
from typing import Literal

import pytest

from jaxrl import agents, envs, networks, presets
from jaxrl._src.signatures import Option, help_of, options_of
from jaxrl.algorithms import ALGORITHMS, Algorithm, algorithm
from jaxrl.types import Box, Discrete, MultiDiscrete

ROWS = list(ALGORITHMS.values())


def example(
    network,
    *,
    size: int = 3,
    rate: float | None = None,
    widths: Sequence[int] = (1, 2),
    mode: Literal["a", "b"] = "a",
    fast: bool = False,
    shared: int = 0,
    optimizer=None,
    hparams: tuple = (),
):
    """An example.

    Args:
      network: a positional argument.
      size: on one line.
      rate, mode: of two arguments,
        on two lines: with a colon.
      shared: as for `other`, and so on.

    Returns:
      size: not an argument.
    """


def other(*, shared: int = 0):
    """Another.

    Args:
      shared: the text of the other function.
    """


def test_options_are_the_keyword_arguments_of_plain_types():
    assert options_of(example) == (
        Option("size", int, False, 3, "on one line."),
        Option("rate", float, False, None, "of two arguments, on two lines: with a colon."),
        Option("widths", int, True, (1, 2), ""),
        Option("mode", str, False, "a", "of two arguments, on two lines: with a colon."),
        Option("fast", bool, False, False, ""),
        Option("shared", int, False, 0, "the text of the other function."),
    )
    assert [option.name for option in options_of(example, without=("rate", "size"))] == ["widths", "mode", "fast", "shared"]


def test_a_docstring_without_a_section_has_no_texts():
    assert help_of(test_a_docstring_without_a_section_has_no_texts) == {}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_option_and_hyperparameter_has_a_text(row):
    for option in (*presets.options_of_agent(row), *row.network_options):
        assert len(option.help) > 5, option.name
    assert row.hparams_help.keys() == set(row.hparams._fields)
    assert all(len(text) > 5 for text in row.hparams_help.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_names_of_options_are_unique(row):
    """The options of the agent, the network, sizes and schedules share the prefix --agent."""
    names = [
        *(option.name for option in (*presets.SIZES, *presets.options_of_agent(row), *row.network_options)),
        *presets.schedules_of(row),
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_static_argument_of_a_factory_is_an_option(row):
    keywords = {name for name, p in inspect.signature(row.factory).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert {option.name for option in row.agent_options} == keywords - {"optimizer", "hparams"}


def test_every_factory_is_in_the_table():
    factories = {name for name in agents.__all__ if inspect.isfunction(getattr(agents, name))}
    assert factories == set(ALGORITHMS)
    assert [row.name for row in ROWS] == list(ALGORITHMS)


def test_action_spaces_are_listed():
    row = Algorithm("a", "A", agents.dqn, (Discrete,), None, networks.q_network)
    assert row.actions == "Discrete"
    assert row._replace(action_spaces=(Discrete, Box)).actions == "Discrete or Box"
    assert row._replace(action_spaces=(int, Discrete, Box)).actions == "int, Discrete or Box"


def test_an_unknown_algorithm_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"unknown algorithm 'trpo'; there are {', '.join(ALGORITHMS)}"):
        algorithm("trpo")
    with pytest.raises(ValueError, match="unknown algorithm 'trpo'"):
        presets.Settings("trpo")


ENVIRONMENTS = {
    Discrete: lambda: envs.make("CartPole-v1"),
    MultiDiscrete: lambda: envs.wrappers.discretize_actions(envs.make("PointMass"), 3),
    Box: lambda: envs.make("PointMass"),
}


@pytest.mark.parametrize(("row", "space"), [(row, space) for row in ROWS for space in row.action_spaces])
def test_every_row_builds_its_network_for_its_action_spaces(row, space):
    """An option that the row sets itself must be in `derived`; the learner checks that network and agent fit each other."""
    assert not {option.name for option in row.network_options} & set(row.derived)
    built = presets.build(presets.default_settings(row.name), ENVIRONMENTS[space]())
    assert isinstance(built.learner.env.action_space, space)


@pytest.mark.parametrize("row", [row for row in ROWS if Discrete in row.action_spaces])
def test_the_defaults_of_every_row_take_observations_that_are_no_floats(row):
    for name in ("Breakout-MinAtar", "FrozenLake-misc"):
        env = envs.make(name, max_steps_in_episode=100)
        assert presets.build(presets.default_settings(row.name), env).learner.env is env
