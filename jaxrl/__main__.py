"""`python -m jaxrl` is the command `jaxrl`."""

from jaxrl.cli import console

console()
