#!/usr/bin/env bash
# In a fresh clone: set up, train DQN and REINFORCE on CartPole-v1 with 16 seeds each, and plot both curves.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
prepare "[gymnax]"

out="runs/quickstart"
[ ! -e "$out" ] || out="runs/quickstart-$(date +%Y%m%d-%H%M%S)"
"$VENV/bin/jaxrl" train dqn --env CartPole-v1 --seeds 16 --steps 80000 --out "$out/dqn"
"$VENV/bin/jaxrl" train reinforce --env CartPole-v1 --seeds 16 --out "$out/reinforce"
"$VENV/bin/jaxrl" plot "$out/dqn" "$out/reinforce" --out "$out/curves.png"
echo "Play the policies again: $VENV/bin/jaxrl eval $out/dqn"
