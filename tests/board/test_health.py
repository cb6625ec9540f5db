"""Health from trees of files and from the boards' own programs, which are shell scripts here."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

from edge_mnv2.board.health import Health, HealthMonitor, HealthSample
from edge_mnv2.board.throttling import MEANINGS, WORDS, decode, explain
from tests.board import trees
from tests.board.trees import Tree

TEMPERATURES = [
    (trees.pi_4, 48.7),
    (trees.jetson_nano, 40.5),
    (trees.jetson_orin_nano, 48.5),
    (trees.coral_dev_board, 54.0),
    (trees.laptop, 61.0),
]


@pytest.mark.parametrize("build, celsius", TEMPERATURES, ids=[row[0].__name__ for row in TEMPERATURES])
def test_temperature(tmp_path: Path, build: Callable[[Path], Tree], celsius: float) -> None:
    assert Health(build(tmp_path).root).sample().temp_c == celsius


@pytest.mark.parametrize(
    "zones, celsius",
    [
        ([("acpitz", 27_800), ("cpu-thermal", 50_000)], 50.0),
        ([("PMIC-Die", 100_000), ("gpu-thermal", 40_000)], 40.0),
        ([("cpu-thermal", ""), ("soc-thermal", 41_000)], 41.0),
        ([("cpu-thermal", -256_000)], None),
        ([("cpu-thermal", 999_000_000)], None),
        ([("cpu-thermal", 47)], 47.0),
        ([("pwm-fan", 30_000)], None),
    ],
)
def test_which_zone(tmp_path: Path, zones: list, celsius: float) -> None:
    for number, (kind, value) in enumerate(zones):
        Tree(tmp_path).zone(number, kind, value)
    assert Health(tmp_path).sample().temp_c == celsius


def test_zones_in_numeric_order(tmp_path: Path) -> None:
    for number in range(12):
        Tree(tmp_path).zone(number, "cpu-thermal", 40_000 + number * 1000)
    assert Health(tmp_path).sample().temp_c == 40.0


def test_temperature_of_a_pc_chip(tmp_path: Path) -> None:
    Tree(tmp_path).zone(0, "acpitz", 27_800).write_all(
        "sys/class/hwmon/hwmon2", {"name": "k10temp", "temp1_input": 65_250}
    )
    assert Health(tmp_path).sample().temp_c == 65.2


def test_clock_and_governor(tmp_path: Path) -> None:
    sample = Health(trees.pi_4(tmp_path).root).sample()
    assert (sample.cpu_mhz, sample.governor) == (1800, "ondemand")


def test_memory(tmp_path: Path) -> None:
    tree = trees.pi_4(tmp_path).write(
        "proc/pressure/memory", "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=0.00"
    )
    sample = Health(tree.root).sample()
    assert (sample.memory_total_mb, sample.memory_available_mb, sample.swap_used_mb) == (3794, 1897, 50)
    assert sample.memory_pressure == 12.5
    tree.write("proc/self/cgroup", "0::/box").write("sys/fs/cgroup/box/memory.max", 512 << 20)
    tree.write("sys/fs/cgroup/box/memory.current", 300 << 20).write(
        "sys/fs/cgroup/box/memory.stat", "anon 1\ninactive_file 104857600"
    )
    sample = Health(tree.root).sample()
    assert (sample.memory_total_mb, sample.memory_available_mb) == (512, 312)


# --- throttling -------------------------------------------------------------------------------------------------------

BITS = [
    (0x0, [], []),
    (0x1, ["under-voltage"], ["under-voltage"]),
    (0x2, ["frequency-capped"], ["frequency-capped"]),
    (0x4, ["throttled"], ["throttled"]),
    (0x8, ["soft-temperature-limit"], ["soft-temperature-limit"]),
    (0x50005, ["under-voltage", "throttled"], ["under-voltage", "throttled"]),
    (0x50000, [], ["under-voltage", "throttled"]),
    (0xE0008, ["soft-temperature-limit"], ["frequency-capped", "throttled", "soft-temperature-limit"]),
    (0xF000F, list(WORDS[:4]), list(WORDS[:4])),
    (0xFFF0FFF0, [], []),
]


@pytest.mark.parametrize("bits, now, ever", BITS, ids=[hex(row[0]) for row in BITS])
def test_bits(bits: int, now: list[str], ever: list[str]) -> None:
    assert decode(bits) == (now, ever)


def test_every_word_has_a_meaning() -> None:
    assert set(MEANINGS) == set(WORDS)
    assert explain(["under-voltage"]).startswith("under-voltage: the power supply is too weak")


def test_vcgencmd(tmp_path: Path) -> None:
    tree = trees.pi_4(tmp_path).vcgencmd("0x50005", mhz=600)
    sample = Health(tree.root).sample()
    assert sample.throttled == ["under-voltage", "throttled"]
    assert sample.throttled_since_boot == ["under-voltage", "throttled"]
    assert sample.cpu_mhz == 600, "the firmware's clock, not the one that the kernel asked for"
    tree.vcgencmd("0x0")
    sample = Health(tree.root).sample()
    assert (sample.throttled, sample.throttled_since_boot, sample.cpu_mhz) == ([], [], 1800)


def test_vcgencmd_on_the_path_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path).vcgencmd("0x80008", temperature="81.2")
    monkeypatch.setenv("PATH", f"{tree.root / 'usr/bin'}:/usr/bin:/bin")
    assert Health("/").sample().throttled == ["soft-temperature-limit"]


def test_temperature_from_vcgencmd(tmp_path: Path) -> None:
    tree = Tree(tmp_path).vcgencmd(temperature="81.2")
    assert Health(tree.root).sample().temp_c == 81.2


@pytest.mark.parametrize(
    "file",
    [
        "sys/devices/platform/soc/soc:firmware/get_throttled",
        "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
        "sys/devices/platform/soc:firmware/get_throttled",
        "sys/firmware/raspberrypi/get_throttled",
    ],
)
@pytest.mark.parametrize("text", ["50001", "0x50001"])
def test_sysfs_twin(tmp_path: Path, file: str, text: str) -> None:
    tree = trees.pi_4(tmp_path).write(file, text)
    sample = Health(tree.root).sample()
    assert sample.throttled == ["under-voltage"]
    assert sample.throttled_since_boot == ["under-voltage", "throttled"]


BROKEN_TOOLS = [
    ("fails", "echo 'VCHI initialization failed'; exit 255"),
    ("not registered", "echo 'error=1 error_msg=\"Command not registered\"'"),
    ("no rights", 'echo "Can\'t open device file: /dev/vcio" >&2; exit 1'),
    ("nonsense", "echo throttled=yes"),
    ("binary", "printf '\\377\\376\\000'"),
    ("killed", "kill -9 $$"),
]


@pytest.mark.parametrize("body", [row[1] for row in BROKEN_TOOLS], ids=[row[0] for row in BROKEN_TOOLS])
def test_vcgencmd_that_does_not_answer(tmp_path: Path, body: str) -> None:
    tree = Tree(tmp_path).script("vcgencmd", body)
    sample = Health(tree.root).sample()
    assert (sample.throttled, sample.temp_c) == (None, None)


def test_failed_tool_rests(tmp_path: Path) -> None:
    tree = Tree(tmp_path).script("vcgencmd", 'echo x >>"$0.calls"; exit 1')
    health = Health(tree.root, tool_interval_s=0)
    for _ in range(5):
        health.sample()
    calls = (tree.root / "usr/bin/vcgencmd.calls").read_text().split()
    assert len(calls) <= 3, "one for each question that was asked"


def test_tool_that_failed_once_is_asked_again(tmp_path: Path) -> None:
    tree = trees.pi_4(tmp_path).vcgencmd("0x1")
    health = Health(tree.root, tool_interval_s=0)
    assert health.sample().throttled == ["under-voltage"]
    tree.script("vcgencmd", "exit 1")
    assert health.sample().throttled is None
    tree.vcgencmd("0x4")
    assert health.sample().throttled == ["throttled"]


def test_answer_is_kept_for_a_while(tmp_path: Path) -> None:
    tree = trees.pi_4(tmp_path).script("vcgencmd", 'echo x >>"$0.calls"; echo throttled=0x0')
    health = Health(tree.root, tool_interval_s=60)
    for _ in range(5):
        health.sample()
    assert len((tree.root / "usr/bin/vcgencmd.calls").read_text().split()) <= 2


def test_under_voltage_alarm_alone(tmp_path: Path) -> None:
    tree = trees.pi_4(tmp_path)
    assert Health(tree.root).sample().throttled is None, "the alarm says nothing about heat"
    tree.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", 1)
    assert Health(tree.root).sample().throttled == ["under-voltage"]


def test_cooling_devices(tmp_path: Path) -> None:
    tree = Tree(tmp_path).write_all("sys/class/thermal/cooling_device0", {"type": "pwm-fan", "cur_state": 3})
    assert Health(tree.root).sample().throttled is None
    tree.write_all("sys/class/thermal/cooling_device1", {"type": "thermal-cpufreq-0", "cur_state": 0})
    health = Health(tree.root)
    assert health.sample().throttled == []
    tree.write("sys/class/thermal/cooling_device1/cur_state", 2)
    assert health.sample().throttled == ["throttled"]


def test_event_counters_of_a_jetson(tmp_path: Path) -> None:
    folder = "sys/class/hwmon/hwmon3"
    counters = {"oc1_event_cnt": 0, "oc2_event_cnt": 0, "oc3_event_cnt": 27}
    tree = trees.jetson_orin_nano(tmp_path)
    tree.write_all("sys/class/hwmon/hwmon4", {"name": "soctherm_oc", **counters})
    health = Health(tree.root)
    first = health.sample()
    assert (first.throttled, first.throttled_since_boot) == ([], ["over-current"])
    tree.write("sys/class/hwmon/hwmon4/oc1_event_cnt", 1)
    assert health.sample().throttled == ["under-voltage"]
    assert health.sample().throttled == []
    tree.write(f"{folder}/curr1_crit_alarm", 1)
    assert health.sample().throttled == ["over-current"]


def test_throttle_counter_of_a_pc(tmp_path: Path) -> None:
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    tree = trees.laptop(tmp_path).write(counter, 0)
    health = Health(tree.root)
    assert health.sample().throttled == []
    tree.write(counter, 5)
    sample = health.sample()
    assert (sample.throttled, sample.throttled_since_boot) == (["throttled"], ["throttled"])


# --- power ------------------------------------------------------------------------------------------------------------


def test_rails_of_jetpack_4(tmp_path: Path) -> None:
    sample = Health(trees.jetson_nano(tmp_path).root).sample()
    assert [rail.name for rail in sample.rails] == ["POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"]
    assert (sample.rails[0].volts, sample.rails[0].amps, sample.rails[0].watts) == (5.0, 0.348, 1.74)
    assert sample.power_w == 1.74


def test_rails_of_jetpack_5_and_later(tmp_path: Path) -> None:
    sample = Health(trees.jetson_orin_nano(tmp_path).root).sample()
    assert [rail.name for rail in sample.rails] == ["VDD_IN", "VDD_CPU_GPU_CV"], "once each; not the sum, not NC"
    assert sample.power_w == 4.44


def test_rails_of_a_pi_5(tmp_path: Path) -> None:
    pmic = "".join(
        f"   {rail}_A current({number})={amps}A\\n   {rail}_V volt({number + 8})={volts}V\\n"
        for number, (rail, amps, volts) in enumerate(
            [("3V3_SYS", 0.1, 3.3), ("1V8_SYS", 0.2, 1.8), ("DDR_VDD2", 0.05, 1.1), ("VDD_CORE", 2.0, 0.9)]
        )
    )
    tree = trees.pi_5(tmp_path).vcgencmd(pmic=pmic + "   EXT5V_V volt(24)=5.11936000V\\n")
    sample = Health(tree.root).sample()
    assert sample.power_w == pytest.approx(0.33 + 0.36 + 0.055 + 1.8)
    rails = {rail.name: rail for rail in sample.rails}
    assert (rails["EXT5V"].volts, rails["EXT5V"].amps, rails["EXT5V"].watts) == (5.11936, None, None)


def test_no_rails(tmp_path: Path) -> None:
    sample = Health(trees.pi_4(tmp_path).vcgencmd().root).sample()
    assert (sample.rails, sample.power_w, sample.power_mode) == (None, None, None)


def test_power_mode_from_files(tmp_path: Path) -> None:
    assert Health(trees.jetson_xavier_nx(tmp_path).root).sample().power_mode == "MODE_15W_6CORE"


def test_power_mode_from_nvpmodel(tmp_path: Path) -> None:
    tree = trees.jetson_nano(tmp_path).script("nvpmodel", "printf 'NV Fan Mode:quiet\\nNV Power Mode: MAXN\\n0\\n'")
    assert Health(tree.root).sample().power_mode == "MAXN"


# --- the whole --------------------------------------------------------------------------------------------------------


def test_temperature_and_load_of_the_npu(tmp_path: Path) -> None:
    sample = Health(trees.orange_pi_5(tmp_path / "a").root).sample()
    assert (sample.npu_temp_c, sample.npu_load, sample.temp_c) == (47.2, [68, 7, 0], 45.3)
    # One core, without a number; without a zone of its own no temperature is its own.
    board = trees.zero_3w(tmp_path / "b").zone(1, "charger-input", 30_000)
    sample = Health(board.write("sys/kernel/debug/rknpu/load", "NPU load:  9%").root).sample()
    assert (sample.npu_temp_c, sample.npu_load) == (None, [9])
    sample = Health(trees.pi_4(tmp_path / "c").root).sample()
    assert (sample.npu_temp_c, sample.npu_load) == (None, None)


def test_nothing_there(tmp_path: Path) -> None:
    sample = Health(tmp_path).sample()
    assert all(value is None for value in sample.as_dict().values())
    json.dumps(sample.as_dict())


def test_this_machine() -> None:
    sample = Health().sample()
    assert sample.memory_available_mb
    json.dumps(sample.as_dict())


def test_values_that_vanish(tmp_path: Path) -> None:
    tree = trees.pi_4(tmp_path)
    health = Health(tree.root)
    assert health.sample().temp_c == 48.7
    for file in ("sys/class/thermal/thermal_zone0/temp", "proc/meminfo"):
        (tree.root / file).unlink()
    sample = health.sample()
    assert (sample.temp_c, sample.memory_total_mb) == (None, None)


def test_sensor_that_raises_does_not_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health(trees.pi_4(tmp_path).root)

    def broken() -> HealthSample:
        raise ZeroDivisionError

    monkeypatch.setattr(health, "_sample", broken)
    assert health.sample().temp_c is None


def test_monitor_follows_a_board_that_heats_up(tmp_path: Path) -> None:
    tree = trees.pi_4(tmp_path).vcgencmd("0x0")
    seen: list[HealthSample] = []
    news = threading.Condition()

    def listen(sample: HealthSample) -> None:
        with news:
            seen.append(sample)
            news.notify_all()

    def after(change: Callable[[], object]) -> None:
        """Make a change and wait for a sample that was begun after it."""
        change()
        with news:
            count = len(seen)
            assert news.wait_for(lambda: len(seen) >= count + 2, timeout=20)

    monitor = HealthMonitor(Health(tree.root, tool_interval_s=0), 0.01, listen)
    assert monitor.latest() == (None, None) and monitor.worst() == (None, None)
    with monitor:
        assert monitor.wait(20).temp_c == 48.7
        after(lambda: tree.zone(0, "cpu-thermal", 85_000).vcgencmd("0x4"))
        assert monitor.latest() == (85.0, ("throttled",))
        after(lambda: tree.zone(0, "cpu-thermal", 70_000).vcgencmd("0x40001"))
        assert monitor.latest() == (70.0, ("under-voltage",))
    assert monitor.worst() == (85.0, ("under-voltage", "throttled"))
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count, "it has stopped"
    monitor.stop()


def test_listener_that_raises_does_not_stop_the_monitor(tmp_path: Path) -> None:
    calls = threading.Semaphore(0)

    def listen(sample: HealthSample) -> None:
        calls.release()
        raise ValueError

    with HealthMonitor(Health(tmp_path), 0.001, listen):
        assert all(calls.acquire(timeout=20) for _ in range(3))
