"""Shared by all tests."""

import os
from pathlib import Path

# Triton interprets its kernels where there is no GPU; it must know before it is imported.
if not Path("/dev/nvidia0").exists():
    os.environ["TRITON_INTERPRET"] = "1"
