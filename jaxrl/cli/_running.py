"""What `jaxrl train`, `jaxrl resume` and `jaxrl tune` share: progress, signals, and the summary at the end."""

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from jaxrl._src.paths import quoted
from jaxrl.cli._parsing import Parser, user_errors

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_REPEATED = 1.0  # seconds within which the same signal is the same request
_UNITS = {"s": 1, "m": 60, "h": 3600}


def add_checkpoint_option(parser: Parser) -> None:
    parser.add_argument(
        "--checkpoint-every", type=duration, default=300.0, metavar="TIME",
        help="time between checkpoints, such as 90s, 5m or 1h, or more if they would take over 3 %% of the time; none for no "
        "checkpoints (default: 5m)",
    )  # fmt: skip


def add_log_option(parser: Parser, text: str) -> None:
    parser.add_argument(
        "--log", action="append", choices=("tensorboard", "wandb", "mlflow"),
        help=f"send the metrics to a program that shows them while they are computed; repeatable, each needs its extra; {text}",
    )  # fmt: skip


def loggers_for(run: Path, options: argparse.Namespace) -> list[Any]:
    """The loggers of the option `--log`, or else those with which the run was begun."""
    from jaxrl.experiment.loggers import loggers_of, make_logger

    return [make_logger(name, run) for name in dict.fromkeys(options.log or loggers_of(run))]


def duration(text: str) -> float | None:
    """Seconds: "90s", "5m" or "1h"; None for "none"."""
    if text == "none":
        return None
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"cannot be {text!r}: give a time such as 90s, 5m or 1h, or none")
    return seconds


def carry_out(start: Callable[..., Any], config: Any, out: Path) -> int:
    """Call `start(report=..., stop=...)`, print what it returns, and return the exit code."""
    from jaxrl.experiment import Interrupted
    from jaxrl.experiment.terminal import progress, summary

    with stop_signals() as received:
        try:
            with progress(config) as report, user_errors():
                result = start(report=partial(_report, report), stop=received)
        except Interrupted as interrupted:
            _say(f"interrupted; {interrupted}. Continue with `jaxrl resume {quoted(out)}`")
            return 128 + (received() or signal.SIGINT)
    summary(result, out)
    return 0


def carry_out_part(config: Any, out: Path, part: tuple[int, int], options: argparse.Namespace) -> int:
    """Train a part of the runs, or continue it if it was interrupted, and return the exit code.

    Args:
      config: all runs.
      out: the run folder of all parts.
      part: the number of the part, from 1, and how many there are.
      options: with `checkpoint_every` and `log`, and `force` for `jaxrl resume`.
    """
    from jaxrl.experiment import folder, parts, resume, run

    with user_errors():
        if parts.is_finished(out, config):
            print(f"{out} is finished")
            return 0
        config.part(*part)
        num_parts = parts.begin(out, config, part[1])
        if num_parts != part[1]:
            raise ValueError(
                f"{out} is divided into {num_parts} parts already: give one of 1/{num_parts} to {num_parts}/{num_parts}"
            )
        config, path = config.part(*part), parts.part_folder(out, *part)
    if folder.is_finished(path):
        print(f"{path} is finished")
        return 0
    start: Callable[..., Any] = partial(run, config, path)
    with user_errors():
        loggers = loggers_for(path, options)
    if (path / folder.CONFIG).is_file():
        start = partial(resume, path, force=getattr(options, "force", False))
    return carry_out(partial(start, checkpoint_every=options.checkpoint_every, loggers=loggers), config, path)


def parse_part(text: str) -> tuple[int, int]:
    """Two numbers, such as "3/8", the third of eight parts."""
    try:
        index, num_parts = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be two numbers such as 3/8, the third of eight parts; got {text!r}") from None
    return index, num_parts


@contextlib.contextmanager
def stop_signals(*, interrupt: bool = False) -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the signal that asked to stop, or None. With `interrupt`, raise KeyboardInterrupt for it too.

    The second signal ends the process at once. That does not hold for the same one within a second, since many launchers send a
    signal both to a process and to its group, nor for SIGHUP, which only says that the terminal or the parent has gone. A thread
    hears the signals, since Python itself runs their handlers only between two of its instructions, and a compiled program is a
    single one.
    """
    numbers: list[int] = []
    raised: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def listen() -> None:
        first_at, hang_up = 0.0, getattr(signal, "SIGHUP", None)
        while received := ours.recv(1):
            if received[0] not in handled:
                continue
            if not numbers:
                first_at = time.monotonic()
            elif received[0] != hang_up and (received[0] != numbers[0] or time.monotonic() - first_at > _REPEATED):
                _say("ended at once")
                os._exit(128 + numbers[0])
            else:
                continue
            numbers.append(received[0])
            name = signal.Signals(numbers[0]).name
            _say(f"{name}: stopping after the computation in progress; once more ends at once")

    def handle(number: int, frame: Any) -> None:
        if interrupt and not raised:  # once, so that nothing disturbs what is cleaned up then
            raised.append(number)
            raise KeyboardInterrupt

    handled: dict[int, Any] = {}
    for name in _SIGNALS:
        number = getattr(signal, name, None)  # no SIGHUP on Windows
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup, or in the background
            handled[number] = signal.signal(number, handle)
    previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield lambda: next(iter(raised or numbers), None)
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in handled.items():
            signal.signal(number, handler)
        theirs.close()  # ends the thread
        thread.join()
        ours.close()


def _report(report: Callable[[Any], None], progress: Any) -> None:
    with contextlib.suppress(OSError):  # a terminal or a pipe that is gone does not end the training
        report(progress)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        if sys.stdout.isatty():
            print("\x1b[?25h", end="", flush=True)  # the cursor, which the progress bar hides
        print(f"jaxrl: {text}", file=sys.stderr, flush=True)
