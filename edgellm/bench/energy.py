"""Energy, where the machine measures it: RAPL counters of x86 processors, INA3221 sensors of Jetson boards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgellm.system.sysfs import find, read_int, read_text

RAPL = "sys/class/powercap"
INA3221 = "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "5V_IN")  # rails that feed all others
INTERVAL_S = 0.1


class Meter(Protocol):
    """A counter of energy; `source` says what is measured."""

    source: str

    def joules(self) -> float | None:
        """A number that grows, of which only differences mean something; None where it cannot be read now."""

    def close(self) -> None: ...


def open_meter(root: Path = Path("/")) -> Meter | str:
    """The best meter of this machine; a string says why there is none. Close it."""
    rapl = rapl_domains(root)
    readable = [domain for domain in rapl if read_int(domain.path / "energy_uj") is not None]
    if rapl and len(readable) == len(rapl):
        return RaplMeter(readable)
    rails = ina_rails(root)
    if rails:
        return PowerMeter(rails)
    if rapl:
        return f"{RAPL} is there but cannot be read: run as root, or give read access to its energy_uj files"
    return "this machine exposes no energy sensor (RAPL or INA3221)"


@dataclass(frozen=True)
class RaplDomain:
    path: Path
    name: str
    range_uj: int  # microjoules at which the counter starts over


def rapl_domains(root: Path) -> list[RaplDomain]:
    """The packages, and their memory where it is counted beside them. Cores and the like are parts of a package."""
    domains = []
    for path in find(root, f"{RAPL}/intel-rapl:*"):
        name = read_text(path / "name") or ""
        if name.startswith("package") or name == "dram":
            domains.append(RaplDomain(path, name, read_int(path / "max_energy_range_uj") or 0))
    return domains


class RaplMeter:
    """Adds up what counters advanced since the last reading; they may start over once in between."""

    def __init__(self, domains: list[RaplDomain]) -> None:
        self.source = "RAPL " + " + ".join(domain.name for domain in domains)
        self._domains = domains
        self._last = [read_int(domain.path / "energy_uj") for domain in domains]
        self._total_uj = 0

    def joules(self) -> float | None:
        for i, domain in enumerate(self._domains):
            before, now = self._last[i], read_int(domain.path / "energy_uj")
            if before is None or now is None:
                return None
            self._total_uj += now - before + (domain.range_uj if now < before else 0)
            self._last[i] = now
        return self._total_uj / 1e6

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Rail:
    """A supply line, with the files that give its millivolts and milliamperes."""

    label: str
    voltage: Path
    current: Path

    def watts(self) -> float | None:
        millivolts, milliamperes = read_int(self.voltage), read_int(self.current)
        return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6


def ina_rails(root: Path) -> list[Rail]:
    """The rail that feeds the board, or else all rails that can be read."""
    rails = []
    for label_file in find(root, f"{INA3221}/in*_label"):
        number = label_file.name.removeprefix("in").removesuffix("_label")
        label = read_text(label_file) or ""
        rail = Rail(label, label_file.with_name(f"in{number}_input"), label_file.with_name(f"curr{number}_input"))
        if label and rail.watts() is not None:  # also leaves out the sums of shunt voltages, which have no current
            rails.append(rail)
    whole = [rail for rail in rails if rail.label in WHOLE_BOARD]
    return whole[:1] or rails


class PowerMeter:
    """Integrates power over time, ten readings a second in a thread of its own."""

    def __init__(self, rails: list[Rail], clock: Callable[[], float] = time.monotonic) -> None:
        self.source = "INA3221 " + " + ".join(rail.label for rail in rails)
        self._rails = rails
        self._clock = clock
        self._lock = threading.Lock()
        self._total = 0.0
        self._last_s, self._last_watts = clock(), _watts(rails)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="edgellm-power", daemon=True)
        self._thread.start()

    def joules(self) -> float | None:
        with self._lock:
            now, watts = self._clock(), _watts(self._rails)
            if watts is None or self._last_watts is None:
                self._last_watts = None
                return None
            self._total += (now - self._last_s) * (watts + self._last_watts) / 2
            self._last_s, self._last_watts = now, watts
            return self._total

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            self.joules()


def _watts(rails: list[Rail]) -> float | None:
    """What all rails carry together; None where one of them cannot be read."""
    watts = [rail.watts() for rail in rails]
    return None if None in watts else sum(w for w in watts if w is not None)
