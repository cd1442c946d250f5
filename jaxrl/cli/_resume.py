"""`jaxrl resume`"""

from functools import partial
from pathlib import Path

from jaxrl.cli._parsing import Parser, user_errors
from jaxrl.cli._running import add_checkpoint_option, add_log_option, carry_out
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
    options = parser.parse(argv)
    set_up_jax()
    from jaxrl.experiment import folder, resume
    from jaxrl.experiment.config import load_config
    from jaxrl.experiment.loggers import loggers_of, make_logger

    with user_errors():
        config = load_config(options.run)
    if folder.is_finished(options.run):
        print(f"{options.run} is finished: there is nothing to resume")
        return 0
    with user_errors():
        loggers = [make_logger(name, options.run) for name in options.log or loggers_of(options.run)]
    start = partial(resume, options.run, checkpoint_every=options.checkpoint_every, force=options.force, loggers=loggers)
    return carry_out(start, config, options.run)
