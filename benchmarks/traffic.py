"""Count the bytes that the kernels of a training loop read and write on an NVIDIA H200, compiled ahead of time.

Every kernel reads its operands from memory and writes its results, or the slices of them that it needs. What a cache saves is not
counted: with many seeds, the values between two kernels do not fit into it. `scripts/test-aot.sh --print` prints the counts.
"""

import functools
import math
import re
from typing import NamedTuple

from benchmarks import launches


class Instruction(NamedTuple):
    name: str
    operation: str
    size: int  # bytes of the result
    operands: list[str]
    line: str


def bytes_of_loop(text: str, trips: int) -> int:
    """Bytes read and written in one turn of the loop with this many turns in a compiled program; of several such, the most."""
    bodies = {
        name: {i.name: i for i in (_parse(operation, line) for operation, line in body)}
        for name, body in launches.computations(text).items()
    }
    loops = [i for body in bodies.values() for i in body.values() if i.operation == "while" and f'"n":"{trips}"' in i.line]
    return max(_bytes_of(_called(loop, "body"), bodies) for loop in loops)


def _parse(operation: str, line: str) -> Instruction:
    match = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) [\w\-]+\((.*)$", line)
    assert match, line
    depth, end = 1, 0
    while depth and end < len(match[3]):
        depth += {"(": 1, ")": -1}.get(match[3][end], 0)
        end += 1
    return Instruction(match[1], operation, _size(match[2]), re.findall(r"%([\w.\-]+)", match[3][: end - 1]), line)


def _size(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple, e.g. "f32[2,3]{1,0}"."""
    arrays = re.findall(r"\b(?:pred|(?:s|u|f|bf)(\d+))\[([\d,]*)\]", shape)
    return sum(int(bits or 8) // 8 * math.prod(int(n) for n in dims.split(",") if n) for bits, dims in arrays)


def _called(instruction: Instruction, attribute: str) -> str:
    match = re.search(rf"\b{attribute}=%?([\w.\-]+)", instruction.line)
    assert match, instruction.line
    return match[1]


def _bytes_of(name: str, bodies: dict[str, dict[str, Instruction]]) -> int:
    """Bytes that all kernels of a computation move, those of its calls and inner loops included."""
    total, body = 0, bodies[name]
    for instruction in body.values():
        if instruction.operation == "call":
            total += _bytes_of(_called(instruction, "to_apply"), bodies)
        elif instruction.operation == "while":
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.line)
            if not trips:
                raise ValueError(f"a loop of unknown length: {instruction.name}")
            total += int(trips[1]) * _bytes_of(_called(instruction, "body"), bodies)
        elif instruction.operation == "fusion":
            inner = bodies[_called(instruction, "calls")]
            root = list(inner)[-1]
            parameters = [i.name for i in inner.values() if i.operation == "parameter"]
            total += sum(_read(parameter, inner) for parameter in parameters) + _written(root, inner)
        elif instruction.operation not in launches.FREE:
            total += instruction.size + sum(body[x].size for x in instruction.operands if x in body)
    return total


def _read(name: str, body: dict[str, Instruction]) -> int:
    """Bytes of a value that a fusion reads: of slices that it takes, only those."""
    total = 0
    for user in (i for i in body.values() if name in i.operands):
        if user.operation == "bitcast":
            total += _read(user.name, body)
        elif user.operation in ("slice", "dynamic-slice", "gather") and user.operands[0] == name:
            total += user.size
        elif not (user.operation in ("dynamic-update-slice", "scatter") and user.operands[0] == name):
            return body[name].size
    return min(total, body[name].size)


def _written(name: str, body: dict[str, Instruction]) -> int:
    """Bytes that a fusion writes: of an array that it updates in place, the update."""
    result = body[name]
    if result.operation in ("tuple", "bitcast"):
        return sum(_written(x, body) for x in result.operands)
    if result.operation in ("dynamic-update-slice", "scatter"):
        return body[result.operands[1 if result.operation == "dynamic-update-slice" else 2]].size
    return result.size


def main() -> None:
    if not launches.available("h200"):
        return
    breakout = functools.partial(launches.dqn, "Breakout-MinAtar", channels=(16,))
    for name, program in {"DQN": launches.dqn, "DQN on MinAtar's Breakout": breakout, "SAC": launches.sac}.items():
        for dtype in ("float32", "bfloat16"):
            text = launches.compile_seeds("h200", program(dtype=dtype), 1_024).as_text()
            kernels, size = launches.deepest(launches.loops(text), trips=64), bytes_of_loop(text, trips=64) / 1_024 / 1e3
            print(f"{name} in {dtype}, 1,024 seeds: {size:,.0f} KB for each seed and iteration, {kernels} kernels", flush=True)


if __name__ == "__main__":
    main()
