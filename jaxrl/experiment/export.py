"""Policies as files that other programs run without jaxrl: StableHLO, for whatever runs XLA programs, and ONNX."""

import importlib
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.extend
import jax.numpy as jnp

import jaxrl
from jaxrl._src.checks import check_choice
from jaxrl._src.space_json import space_to_json
from jaxrl.experiment.deployment import Policy, load_policy
from jaxrl.spaces import spec

FORMATS = ("stablehlo", "onnx")
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # those for which a StableHLO artifact is lowered


class _Program(NamedTuple):
    """A policy as a function of a flat list of arrays: the leaves of the observation, then the carry."""

    function: Callable[..., tuple[jax.Array, ...]]  # -> (action, *carry)
    inputs: list[tuple[str, jax.ShapeDtypeStruct]]  # names, shapes without the batch axis
    outputs: list[tuple[str, jax.ShapeDtypeStruct]]


def export_policy(
    run: Path | str, out: Path | str, *, format: str = "stablehlo", seed: int | None = None,
    setting: Mapping[str, float] | None = None, which: str = "last",
) -> tuple[Path, Path]:  # fmt: skip
    """Write one policy of a run folder as a file that needs no jaxrl, and a description of it in JSON.

    The program maps observations to greedy actions, for batches of any size. Its inputs are the leaves of the observation,
    `[B, ...]`, in the order of their names, and, for a policy that remembers an episode, the arrays of its carry. Its outputs
    are the action and the next carry. Zeros are the carry at the start of an episode, for each row of the batch.

    Args:
      run, seed, setting, which: as for `jaxrl.load_policy`.
      out: where to write, with or without the suffix: `policy` becomes `policy.stablehlo` or `policy.onnx`, with
        `policy.json` beside it.
      format: "stablehlo", which `jax.export.deserialize` reads, for CPU, CUDA, ROCm and TPU; or "onnx".

    Returns:
      The paths of the program and of its description: names, shapes and dtypes of the inputs and outputs, the spaces, and
      where the policy comes from.

    Raises:
      ValueError: as `load_policy`; for an unknown format; if a file cannot be written; and if the policy has an operation
        that ONNX, or the converter, does not have.
      ImportError: without the extra `export` for "stablehlo", or `onnx` for "onnx".
    """
    check_choice("format", format, FORMATS)
    _check_installed(format)
    policy = load_policy(run, seed, setting=setting, which=which)
    program = _program(policy)
    out = Path(out)
    out = out.with_suffix("") if out.suffix in (f".{format}", ".json") else out
    artifact, description = (out.with_name(f"{out.name}.{suffix}") for suffix in (format, "json"))
    text = json.dumps(_description(policy, program, format), indent=2) + "\n"
    content = (_onnx if format == "onnx" else _stablehlo)(program, text)
    try:
        artifact.write_bytes(content)
        description.write_text(text)
    except OSError as error:
        raise ValueError(f"cannot write {artifact} ({error.strerror}); choose another place with --out") from error
    return artifact, description


def _program(policy: Policy) -> _Program:
    function, space = policy.function, policy.observation_space
    leaves, structure = jax.tree.flatten_with_path(spec(space))
    names = [".".join(("observation", *(str(key.key) for key in path))) for path, _ in leaves]
    carry = [(f"carry.{i}", x) for i, x in enumerate(function.carry)]

    def flat(*inputs):
        observation = jax.tree.unflatten(structure, inputs[: len(names)])
        return function.act(observation, *inputs[len(names) :])

    canonical = lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
    inputs = [(name, canonical(x)) for name, (_, x) in zip(names, leaves, strict=True)] + carry
    results = jax.eval_shape(flat, *(jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for _, x in inputs))
    outputs = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in results]
    return _Program(flat, inputs, list(zip(["action", *(f"next_{name}" for name, _ in carry)], outputs, strict=True)))


def _batched(program: _Program) -> list[jax.ShapeDtypeStruct]:
    (batch,) = jax.export.symbolic_shape("batch")
    return [jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for _, x in program.inputs]


def _stablehlo(program: _Program, description: str) -> bytes:
    exported = jax.export.export(jax.jit(program.function), platforms=_PLATFORMS)(*_batched(program))
    return bytes(exported.serialize())


def _onnx(program: _Program, description: str) -> bytes:
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)  # they warn of packages that are not there, with tracebacks
        return _converted(program, description)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _converted(program: _Program, description: str) -> bytes:
    from jax2onnx import to_onnx  # 5 s to import

    specs = _batched(program)
    # Traced here, since the converter replaces functions of jax.numpy while it traces. It promotes dtypes implicitly.
    distinct = lambda *inputs: jax.tree.map(jnp.copy, program.function(*inputs))  # an array that is two outputs has two names
    traced = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(distinct)(*specs))
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = to_onnx(
                traced,
                specs,
                model_name="policy",
                input_names=[name for name, _ in program.inputs],
                output_names=[name for name, _ in program.outputs],
            )
    except Exception as error:  # the converter raises many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"this policy cannot be exported to ONNX ({reason}); use --format stablehlo") from error
    entry = model.metadata_props.add()
    entry.key, entry.value = "jaxrl", description
    return model.SerializeToString()


def _check_installed(format: str) -> None:
    """Raise ImportError if the package that writes the format is missing."""
    package, extra = {"stablehlo": ("flatbuffers", "export"), "onnx": ("jax2onnx", "onnx")}[format]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"the format {format} needs the package {package}: pip install 'jaxrl[{extra}]'") from error


# --- the description ----------------------------------------------------------------------------------


def _description(policy: Policy, program: _Program, format: str) -> dict[str, Any]:
    arrays = lambda named: [{"name": name, "shape": ["batch", *x.shape], "dtype": str(x.dtype)} for name, x in named]
    return {
        "jaxrl": jaxrl.__version__,
        "jax": jax.__version__,
        "format": format,
        "algorithm": policy.algorithm,
        "env": policy.env,
        "seed": policy.seed,
        "setting": policy.setting,
        "observation_space": space_to_json(policy.observation_space),
        "action_space": space_to_json(policy.action_space),
        "inputs": arrays(program.inputs),
        "outputs": arrays(program.outputs),
        "start_of_episode": "zeros for every input named carry",
    }
