# SPDX-License-Identifier: Apache-2.0
"""What figures were taken on."""
import os
import platform
from pathlib import Path


def machine():
    model = "?"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release()}
