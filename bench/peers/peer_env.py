"""What the PyTorch peers share: the allocator's settings, threads, one line of output a figure."""
import json
import os
import sys

# glibc gives large blocks back to the system and faults them in again, every step; so a step spends
# 20-30 % of its time on page faults. These settings keep them. `hugetlb=1` asks for transparent
# huge pages on top.
_KEEP = {"trim_threshold": 1 << 40, "mmap_threshold": 1 << 40, "top_pad": 1 << 28}
ALLOCATORS = {
    "shipped": {},
    "kept": {f"MALLOC_{name.upper()}_": str(value) for name, value in _KEEP.items()},
    "kept_huge": {"GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}" for name, value in {**_KEEP, "hugetlb": 1}.items())},
}


def restart_with(allocator, threads):
    """glibc and OpenMP read their settings at process start: runs this script once more with
    them."""
    if os.environ.get("ORRERY_PEER_STARTED"):
        return
    settings = {**ALLOCATORS[allocator], "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
                "ORRERY_PEER_STARTED": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
                "CUDA_VISIBLE_DEVICES": ""}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})


def emit(peer, case, setting, role, value, unit, **more):
    print(json.dumps({"peer": peer, "case": case, "setting": setting, "role": role, "value": round(value, 4),
                      "unit": unit, **more}), flush=True)
