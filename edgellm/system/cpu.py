"""What the processor's instructions mean for the kernels that multiply integers."""

from __future__ import annotations

import platform
from collections.abc import Collection
from pathlib import Path

X86 = ("x86_64", "amd64", "x86", "i386", "i686")


def adds_int8_products_in_16_bits(machine: str = "", cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether sums of uint8 by int8 products may overflow: on x86 without VNNI they are added in pairs of 16 bits.
    Where the system does not say, they may."""
    if (machine or platform.machine()).lower() not in X86:
        return False
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return True
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return lacks_vnni(flags)


def lacks_vnni(flags: Collection[str]) -> bool:
    """Of an x86 processor, by its flags in /proc/cpuinfo."""
    return not any(flag in flags for flag in ("avx_vnni", "avx512_vnni"))
