"""`jaxrl eval`"""

import json
import math
from pathlib import Path

from jaxrl.cli._parsing import Parser, add_which_option, integer, user_errors
from jaxrl.cli._set_up import set_up_jax


def main(argv: list[str]) -> int:
    parser = Parser("eval", "Play the policies of a run folder greedily on new episodes.", positional="RUN")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--episodes", type=integer, default=100, metavar="INT", help="episodes per policy (default: 100)")
    parser.add_argument("--seed", type=integer, default=0, metavar="INT", help="seed of the episodes (default: 0)")
    add_which_option(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON list with the returns of every policy")
    options = parser.parse(argv)
    set_up_jax()
    from jaxrl._src.tables import print_table
    from jaxrl.experiment import evaluate_policies, load_policies
    from jaxrl.experiment.config import load_config
    from jaxrl.experiment.policies import abstract_policies
    from jaxrl.experiment.terminal import returns_table

    with user_errors():
        config = load_config(options.run)
        policies = load_policies(options.run, abstract_policies(config), options.policy)
        returns = evaluate_policies(config, policies, num_episodes=options.episodes, seed=options.seed)
    if options.json:
        rows = [
            identifier | {"returns": [float(x) if math.isfinite(x) else None for x in row]}
            for identifier, row in zip(config.identifiers(), returns, strict=True)
        ]
        print(json.dumps(rows, indent=2))
        return 0
    which = ", best policies" if options.policy == "best" else ""
    print_table(returns_table(config, returns, f"greedy return over {options.episodes} episodes{which}"))
    return 0
