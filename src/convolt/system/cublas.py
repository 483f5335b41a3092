"""What cuBLAS reads from the environment when a process first uses it; free of torch, to be set before."""

import os

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def make_cublas_deterministic() -> None:
    """Let cuBLAS give equal products equal bits; what the environment says about it stays."""
    os.environ.setdefault(WORKSPACE, ":4096:8")
