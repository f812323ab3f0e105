"""Machines made of files: what /proc and /sys would hold."""

from __future__ import annotations

from pathlib import Path

RAPL = "sys/class/powercap/intel-rapl:"
INA = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
UNREADABLE = None  # a directory in the file's place: reading it fails, also for root


def put(root: Path, files: dict[str, str | int | None]) -> Path:
    for name, content in files.items():
        path = root / name
        if content is UNREADABLE:
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def rapl(domain: str, name: str, energy_uj: int | None, range_uj: int = 1_000_000) -> dict[str, str | int | None]:
    directory = f"{RAPL}{domain}"
    return {
        f"{directory}/name": name,
        f"{directory}/energy_uj": energy_uj,
        f"{directory}/max_energy_range_uj": range_uj,
    }


def rail(number: int, label: str, millivolts: int | None, milliamperes: int | None) -> dict[str, str | int | None]:
    return {
        f"{INA}/in{number}_label": label,
        f"{INA}/in{number}_input": millivolts,
        f"{INA}/curr{number}_input": milliamperes,
    }
