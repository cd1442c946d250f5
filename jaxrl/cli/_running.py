"""What `jaxrl train` and `jaxrl resume` share: progress, signals, and the summary at the end."""

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from jaxrl.cli._parsing import Parser, user_errors

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
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
            _say(f"interrupted; {interrupted}. Continue with `jaxrl resume {out}`")
            return 128 + (received() or signal.SIGINT)
    summary(result, out)
    return 0


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the signal that asked to stop, or None.

    The second signal ends the process at once. A thread hears the signals, since Python itself runs their handlers only between
    two of its instructions, and a compiled program is a single one.
    """
    numbers: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def listen() -> None:
        while received := ours.recv(1):
            if received[0] not in handled:
                continue
            numbers.append(received[0])
            if len(numbers) > 1:
                _say("ended at once")
                os._exit(128 + numbers[0])
            name = signal.Signals(numbers[0]).name
            _say(f"{name}: saving after the computation in progress; once more ends at once")

    handled: dict[int, Any] = {}
    for name in _SIGNALS:
        number = getattr(signal, name, None)  # no SIGHUP on Windows
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup, or in the background
            handled[number] = signal.signal(number, lambda *_: None)
    previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield lambda: numbers[0] if numbers else None
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
