"""The memory that a process has used, as the programs that tests start measure it of themselves."""

import re
from pathlib import Path


def peak_memory() -> int:
    """Bytes that this process had in memory at its fullest. (ru_maxrss would begin at what its parent had.)"""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
