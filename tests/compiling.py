"""Compiler options for what must be equal to the bit: the emitters of users, which conftest.py replaces by faster ones."""

import os

EMITTERS = {"xla_cpu_use_fusion_emitters": True} if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"] else {}
LEVELS = {
    "vectorize": {"xla_backend_optimization_level": 1, **EMITTERS},
    "default": {"xla_backend_optimization_level": 3, **EMITTERS},
}
