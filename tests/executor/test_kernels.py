"""The native kernel tests: every kernel table against its scalar twin, plain and under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("gemm_test", "attention_test", "encoder_test")


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("g++")), reason="needs cmake and g++")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("sanitize", ["OFF", "ON"], ids=["plain", "sanitized"])
def test_kernels_equal_their_scalar_twins(tmp_path: Path, sanitize: str) -> None:
    options = ["-DINFERD_NATIVE_TESTS=ON", f"-DINFERD_SANITIZE={sanitize}"]
    subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path, *options], check=True, capture_output=True)
    build = ["cmake", "--build", tmp_path, "-j2", "--target", *PROGRAMS]
    subprocess.run(build, check=True, capture_output=True)
    for program in PROGRAMS:
        run = subprocess.run([tmp_path / program], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
