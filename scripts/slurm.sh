#!/usr/bin/env bash
# Train on several hosts under SLURM, and continue after a time limit or a preemption until all runs are finished:
#
#     sbatch scripts/slurm.sh dqn --env CartPole-v1 --seeds 64 --out /shared/x
#
# The words are those of `jaxrl train`; --out is a folder that all hosts share. Adapt the lines below to your cluster, or give
# their options to sbatch, which come first.
#SBATCH --job-name=jaxrl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One process for each host, which uses all devices of the host. Two minutes before the time limit, SLURM sends SIGTERM to this
# script, which passes it on: each process saves a checkpoint and ends. Then the job goes back to the queue.
set -uo pipefail

stopped=
stop() {
  stopped=1 interrupted=1
  scancel --signal=TERM "$SLURM_JOB_ID" # to the processes of srun, and not to this script
}
trap stop TERM

# Activate your environment here, for example: source /shared/venv/bin/activate

# srun has not taken this from sbatch since SLURM 22.05.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi

# A process that ends does not kill the others, which are saving too.
srun --kill-on-bad-exit=0 jaxrl train "$@" --distributed &
step=$!
interrupted=1
while [ -n "$interrupted" ]; do # a signal ends the wait, and then the code is that of the signal
  interrupted=
  wait "$step"
  code=$?
done

if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
