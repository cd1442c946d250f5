"""Compiler options for tests whose programs conftest.py would compile too differently or too little."""

import os

# For what must be equal to the bit: the emitters of users, which conftest.py replaces by those that compile faster.
EMITTERS = {"xla_cpu_use_fusion_emitters": True} if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"] else {}
LEVELS = {
    "vectorize": {"xla_backend_optimization_level": 1, **EMITTERS},
    "default": {"xla_backend_optimization_level": 3, **EMITTERS},
}

# For programs that run for seconds.
OPTIMIZED = {"xla_backend_optimization_level": 1}
