"""`jaxrl resume`"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from jaxrl.cli._parsing import Parser, UsageError, user_errors
from jaxrl.cli._running import add_checkpoint_option, add_log_option, carry_out, carry_out_part, loggers_for, parse_part
from jaxrl.cli._set_up import set_up_jax


def main(argv: list[str]) -> int:
    parser = Parser("resume", "Finish a run that was interrupted, from its last checkpoint.", positional="RUN")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    add_checkpoint_option(parser)
    add_log_option(parser, "by default those of the run")
    parser.add_argument(
        "--force", action="store_true",
        help="continue although versions, the kind of the device or the configuration have changed since",
    )  # fmt: skip
    parser.add_argument("--part", type=parse_part, metavar="I/N", help="of a run in parts: finish only this part")
    parser.add_argument(
        "--distributed", action="store_true", help="of a run in parts: divide them as `jaxrl train --distributed`"
    )
    options = parser.parse(argv)
    if options.part and options.distributed:
        raise UsageError("--distributed chooses the part of each process itself: leave out --part")
    from jaxrl.experiment import folder, resume
    from jaxrl.experiment.config import load_config
    from jaxrl.experiment.parts import whole_config

    with user_errors():
        whole = whole_config(options.run)
        if whole is None and options.part and not folder.is_finished(options.run):
            raise ValueError(f"{options.run} has no parts that are not joined: leave out --part")
        if whole is not None and options.distributed:
            from jaxrl.cli._distributed import train_parts

            return train_parts("resume", whole, options.run, argv)
        config = load_config(options.run) if whole is None else whole
    set_up_jax(deterministic=config.deterministic)
    if whole is not None:
        return _finish_parts(whole, options)
    if folder.is_finished(options.run):
        print(f"{options.run} is finished: there is nothing to resume")
        return 0
    if options.distributed:
        raise UsageError(f"{options.run} was not trained in parts: leave out --distributed")
    with user_errors():
        loggers = loggers_for(options.run, options)
    start = partial(resume, options.run, checkpoint_every=options.checkpoint_every, force=options.force, loggers=loggers)
    return carry_out(start, config, options.run)


def _finish_parts(whole: Any, options: argparse.Namespace) -> int:
    """Finish all parts of a folder, one after the other, and join them; or only the part of the options."""
    from jaxrl.cli._merge import join
    from jaxrl.experiment.parts import division

    if options.part:
        return carry_out_part(whole, options.run, options.part, options)
    with user_errors():
        num_parts = division(options.run) or 1
    for index in range(1, num_parts + 1):
        code = carry_out_part(whole, options.run, (index, num_parts), options)
        if code:
            return code
    return join(options.run)
