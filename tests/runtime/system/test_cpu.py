"""Which processors need care with sums of int8 products."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgellm.system.cpu import adds_int8_products_in_16_bits

VNNI = "processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
AVX_VNNI = "flags : avx2 avx_vnni\n"
HASWELL = "flags : fpu avx2 fma\n"


@pytest.mark.parametrize(
    ("machine", "text", "expected"),
    [
        ("x86_64", VNNI, False),
        ("x86_64", AVX_VNNI, False),
        ("x86_64", HASWELL, True),
        ("AMD64", HASWELL, True),
        ("x86_64", "nothing of use\n", True),
        ("aarch64", "Features : asimddp\n", False),
    ],
)
def test_by_flags(machine: str, text: str, expected: bool, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert adds_int8_products_in_16_bits(machine, file) == expected


def test_where_the_system_does_not_say(tmp_path: Path) -> None:
    assert adds_int8_products_in_16_bits("x86_64", tmp_path / "absent")
    assert not adds_int8_products_in_16_bits("arm64", tmp_path / "absent")
