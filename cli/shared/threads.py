"""How the threads of the libraries behave; both settings are read when a library is loaded, so they come first."""

from __future__ import annotations

import os
import sys

# Waiting threads of torch's OpenMP (GNU) spin 300,000 times before they sleep. Beside other work that takes the processor from the
# very thread they wait for: a training step took three times as long as with this many, and seven times as long as with none
# (OMP_WAIT_POLICY=passive). None costs a fifth where there is no other work; for this many no cost could be told from noise.
SPINS = "10000"
# A thread that wants Python's lock asks for it after so long. With Python's own 5 ms the thread that computes waits for the one that
# answers requests, between two batches, for longer than a batch of short texts takes.
SWITCH_SECONDS = 0.0005
# Threads of numpy's OpenBLAS wait for one another by spinning. A query is too short to be worth that: a search from a cold shell over
# 79,000 passages took 1.05 s of processor time with two threads and .70 s with one. Beside other work, which an agent's machine has,
# a query of a server took 10 to 21 ms at the median and up to 300 with two, 5 to 7 and up to 23 with one.
_NUMPY_THREADS = "OPENBLAS_NUM_THREADS"


def limit_spinning() -> None:
    """Let OpenMP's threads sleep soon while they wait, unless the user says how."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def switch_often() -> None:
    """Let threads of a server hand Python's lock on soon."""
    sys.setswitchinterval(SWITCH_SECONDS)


def compute_single_queries() -> None:
    """Let numpy compute in one thread, unless the user says how: one short query at a time is all that it gets."""
    os.environ.setdefault(_NUMPY_THREADS, "1")
