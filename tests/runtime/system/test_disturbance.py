"""What counts as disturbed, from samples made by hand and from machines made of files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgellm.system.disturbance import judge
from edgellm.system.sample import Sample, take_sample
from fake_machine import UNREADABLE, put

CPU = "sys/devices/system/cpu"
ZONE = "sys/class/thermal/thermal_zone0"
TICKS = os.sysconf("SC_CLK_TCK")

BEFORE = Sample(
    at_s=100, cpus=4, own_cpu_s=1, own_wait_s=0.1, busy_s=50, steal_s=3, memory_pressure_s=2, quota_throttled_s=0,
    heat_throttled=7, major_faults=5, frequencies_mhz=(3000, 3000, 800, 800), temperature_c=60, load_1min=0.4,
)  # fmt: skip
AFTER = replace(BEFORE, at_s=110, own_cpu_s=21, own_wait_s=0.2, busy_s=70.5, temperature_c=70)  # 10 s on two threads


def reasons(*after: Sample, runs: tuple[float, ...] = (5.0, 5.0)) -> tuple[str, ...]:
    return judge([BEFORE, *after], runs, threads=2).disturbed


def test_an_undisturbed_run() -> None:
    conditions = judge([BEFORE, AFTER], [5.0, 5.0], threads=2)
    assert conditions.disturbed == ()
    assert conditions.seconds == 10
    assert conditions.other_cpus == pytest.approx(0.05)
    assert conditions.steal_share == 0
    assert conditions.frequency_mhz == 3000  # of the two busiest
    assert conditions.temperature_c == 70
    assert conditions.load_1min == 0.4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"busy_s": 75.0}, "other programs used 0.50 of 4 CPUs"),
        ({"steal_s": 4.0}, "other virtual machines took 2.5% of the CPUs' time"),
        ({"own_wait_s": 1.1}, "threads waited for a CPU 5.0% of the time"),
        ({"quota_throttled_s": 0.25}, "the CPU quota of this container stopped it for 0.25 s"),
        ({"heat_throttled": 9}, "the processor throttled 2 times because of heat"),
        ({"states": ("the board reports under-voltage",)}, "the board reports under-voltage"),
        ({"major_faults": 105}, "100 pages of this process came from the disk"),
        ({"memory_pressure_s": 2.5}, "programs waited for memory 5.0% of the time"),
    ],
)
def test_disturbances(change: dict[str, Any], reason: str) -> None:
    (found,) = reasons(replace(AFTER, **change))
    assert found.startswith(reason)


def test_a_clock_that_falls() -> None:
    slower = replace(AFTER, frequencies_mhz=(2000, 2000, 800, 800))
    assert reasons(AFTER, slower) == ("the clock fell from 3000 to 2000 MHz",)
    assert reasons(slower) == ()  # before the first run the processor was idle: that says nothing


def test_a_run_that_was_stopped_for_a_while() -> None:
    assert reasons(AFTER, runs=(1.0, 1.0, 2.5)) == ("the slowest run took 2.50 times the fastest",)
    assert reasons(AFTER, runs=(0.01, 0.03)) == ()  # too short to say


def test_short_runs_do_not_trip_over_the_resolution_of_counters() -> None:
    short = replace(BEFORE, at_s=100.02, own_cpu_s=1.01, busy_s=50.04, steal_s=3.01)
    assert reasons(short) == ()


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    before, after = take_sample(tmp_path), take_sample(tmp_path)
    assert (before.busy_s, before.own_wait_s, before.frequencies_mhz, before.states) == (None, None, (), ())
    conditions = judge([before, after], [1.0], threads=1)
    assert (conditions.other_cpus, conditions.steal_share, conditions.frequency_mhz) == (None, None, None)
    assert conditions.disturbed == ()


def test_a_machine_that_says_everything(tmp_path: Path) -> None:
    put(tmp_path, {
        "proc/stat": f"cpu  {10 * TICKS} {TICKS} {2 * TICKS} 999 888 {TICKS} {TICKS} {4 * TICKS} 0 0\ncpu0 1 2 3",
        "proc/loadavg": "0.75 0.5 0.25 1/99 1234",
        "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 total=1",
        "proc/self/task/1/schedstat": "500 1000000000 3",
        "proc/self/task/2/schedstat": "500 500000000 3",
        "proc/self/cgroup": "0::/user.slice/app",
        "sys/fs/cgroup/user.slice/app/cpu.stat": "usage_usec 5\nnr_throttled 2\nthrottled_usec 750000",
        f"{CPU}/cpu0/thermal_throttle/core_throttle_count": 3,
        f"{CPU}/cpu1/thermal_throttle/package_throttle_count": 4,
        f"{CPU}/cpu0/cpufreq/scaling_cur_freq": 2_400_000,
        f"{CPU}/cpu1/cpufreq/scaling_cur_freq": 1_200_000,
        f"{ZONE}/temp": 84_500,
        f"{ZONE}/type": "cpu-thermal",
        f"{ZONE}/trip_point_0_type": "active",
        f"{ZONE}/trip_point_0_temp": 40_000,
        f"{ZONE}/trip_point_1_type": "passive",
        f"{ZONE}/trip_point_1_temp": 80_000,
        "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
        "sys/class/thermal/cooling_device0/cur_state": 2,
        "sys/class/thermal/cooling_device1/type": "Fan",
        "sys/class/thermal/cooling_device1/cur_state": 1,
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005",
    })  # fmt: skip
    sample = take_sample(tmp_path)
    assert (sample.busy_s, sample.steal_s) == (15, 4)
    assert (sample.own_wait_s, sample.memory_pressure_s, sample.quota_throttled_s) == (1.5, 2.5, 0.75)
    assert (sample.heat_throttled, sample.frequencies_mhz, sample.temperature_c) == (7, (2400, 1200), 84.5)
    assert sample.load_1min == 0.75
    assert sample.states == (
        "cpu-thermal is at its limit of 80 degrees",
        "cooling slows the processor down (cpufreq-cpu0)",
        "the board reports under-voltage",
        "the board reports throttled",
    )


def test_files_that_cannot_be_read_or_understood(tmp_path: Path) -> None:
    put(tmp_path, {
        "proc/stat": "intr 5",
        "proc/loadavg": UNREADABLE,
        "proc/pressure/memory": UNREADABLE,
        "proc/self/task/1/schedstat": UNREADABLE,
        "proc/self/cgroup": "0::/gone",
        f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "many",
        f"{CPU}/cpu0/cpufreq/scaling_cur_freq": UNREADABLE,
        f"{ZONE}/temp": "warm",
        "sys/class/thermal/cooling_device0/cur_state": UNREADABLE,
        "sys/devices/platform/soc/soc:firmware/get_throttled": "xyz",
    })  # fmt: skip
    sample = take_sample(tmp_path)
    assert sample == replace(
        Sample(sample.at_s, sample.cpus, sample.own_cpu_s), major_faults=sample.major_faults
    )  # fmt: skip


def test_this_machine_can_be_sampled() -> None:
    before, after = take_sample(), take_sample()
    assert after.at_s >= before.at_s
    assert after.own_cpu_s >= before.own_cpu_s
    judge([before, after], [1.0], threads=1)
