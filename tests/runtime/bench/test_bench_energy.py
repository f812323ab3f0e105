"""Energy sensors as the kernel shows them: counters that start over, parts that must not count twice, missing files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgellm.bench.energy import PowerMeter, RaplMeter, ina_rails, open_meter
from fake_machine import INA, RAPL, put, rail, rapl


def test_no_sensor(tmp_path: Path) -> None:
    assert open_meter(tmp_path) == "this machine exposes no energy sensor (RAPL or INA3221)"


def test_rapl_adds_packages_and_their_memory_and_nothing_twice(tmp_path: Path) -> None:
    counters = {"0": "package-0", "1": "package-1", "0:0": "core", "0:1": "dram", "2": "psys"}
    for domain, name in counters.items():
        put(tmp_path, rapl(domain, name, 1000))
    meter = open_meter(tmp_path)
    assert isinstance(meter, RaplMeter)
    assert meter.source == "RAPL package-0 + dram + package-1"
    before = meter.joules()
    for domain in counters:
        put(tmp_path, {f"{RAPL}{domain}/energy_uj": 201_000})
    after = meter.joules()
    assert before == 0
    assert after == pytest.approx(0.6)


def test_a_rapl_counter_starts_over(tmp_path: Path) -> None:
    put(tmp_path, rapl("0", "package-0", 900_000, range_uj=1_000_000))
    meter = open_meter(tmp_path)
    assert isinstance(meter, RaplMeter)
    put(tmp_path, {f"{RAPL}0/energy_uj": 100_000})
    assert meter.joules() == pytest.approx(0.2)
    put(tmp_path, {f"{RAPL}0/energy_uj": 150_000})
    assert meter.joules() == pytest.approx(0.25)


def test_rapl_that_only_root_may_read(tmp_path: Path) -> None:
    put(tmp_path, rapl("0", "package-0", None))
    reason = open_meter(tmp_path)
    assert isinstance(reason, str)
    assert "cannot be read: run as root" in reason


def test_rapl_that_goes_away(tmp_path: Path) -> None:
    put(tmp_path, rapl("0", "package-0", 5))
    meter = open_meter(tmp_path)
    assert isinstance(meter, RaplMeter)
    (tmp_path / f"{RAPL}0/energy_uj").unlink()
    assert meter.joules() is None


def test_jetson_counts_the_rail_that_feeds_the_others(tmp_path: Path) -> None:
    put(tmp_path, rail(1, "VDD_IN", 5000, 2000) | rail(2, "VDD_CPU_GPU_CV", 5000, 800))
    assert [each.label for each in ina_rails(tmp_path)] == ["VDD_IN"]
    assert ina_rails(tmp_path)[0].watts() == pytest.approx(10.0)


def test_jetson_without_such_a_rail_counts_all_that_can_be_read(tmp_path: Path) -> None:
    put(tmp_path, rail(1, "VDD_GPU_SOC", 5000, 2000) | rail(2, "VDD_CPU_CV", 5000, 800) | rail(3, "VIN", 5000, None))
    put(tmp_path, {f"{INA}/in7_label": "sum of shunt voltages", f"{INA}/in7_input": 3})
    assert [each.label for each in ina_rails(tmp_path)] == ["VDD_GPU_SOC", "VDD_CPU_CV"]


def test_power_is_integrated_over_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PowerMeter, "_follow", lambda self: None)  # readings only when asked
    seconds = iter([100.0, 100.0, 102.0, 103.0])
    put(tmp_path, rail(1, "VDD_IN", 5000, 2000))
    meter = PowerMeter(ina_rails(tmp_path), clock=lambda: next(seconds))
    assert meter.joules() == 0
    assert meter.joules() == pytest.approx(20.0)  # 10 W for 2 s
    put(tmp_path, {f"{INA}/curr1_input": 4000})
    assert meter.joules() == pytest.approx(35.0)  # then from 10 to 20 W within 1 s
    meter.close()


def test_a_meter_of_power_reads_by_itself_until_it_is_closed(tmp_path: Path) -> None:
    put(tmp_path, rail(1, "VDD_IN", 5000, 2000))
    meter = open_meter(tmp_path)
    assert isinstance(meter, PowerMeter)
    assert meter.source == "INA3221 VDD_IN"
    before = meter.joules()
    assert before is not None
    after = meter.joules()
    assert after is not None
    assert after > before
    meter.close()
    assert not meter._thread.is_alive()
