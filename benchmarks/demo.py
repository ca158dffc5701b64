"""`make demo ONCE=1` from an empty virtual environment against the same with a made one, in one run on a fresh copy.

usage: python -m benchmarks.demo
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(directory, filter="data")
        took = [_demo(directory) for _ in range(2)]
    print(f"demo from an empty virtual environment  {took[0]:6.1f} s")
    print(f"demo with a made one                    {took[1]:6.1f} s")
    print(f"ratio                                   {took[0] / took[1]:6.1f}")
    return 0


def _demo(directory: str) -> float:
    started = time.monotonic()
    subprocess.run(["make", "demo", "ONCE=1"], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
