"""Small file trees by which software recognizes a board and reads its health, written for these tests.

Looked up in public text: the model and compatible strings of the Raspberry Pis (the kernel's device trees
`bcm2710-rpi-zero-2-w`, `bcm2837-rpi-3-b-plus`, `bcm2711-rpi-4-b`, `bcm2712-rpi-5-b`), of the Jetsons and of the Coral
Dev Board (`imx8mq-phanbell`); the form of `/etc/nv_tegra_release`, of `/proc/cpuinfo` on 32-bit and 64-bit kernels, of
cgroup v1 and v2 files, DMI files, the INA3221 files of both drivers, `vcgencmd`'s answers, `nvpmodel.conf`, ELF.
Illustrative, chosen here: every serial number, memory size, temperature, clock, voltage and current; which release sits
on which board; the Rockchip boards' memory and clocks; the laptop and the containers as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

ARM64_FEATURES = "fp asimd evtstrm crc32 cpuid"
ARM32_FEATURES = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32"

EM_ARM, EM_X86_64, EM_AARCH64 = 40, 62, 183


class Tree:
    """One board's files under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(self, path: str, content: Union[str, bytes, int], *, executable: bool = False) -> Tree:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else f"{content}\n".encode()
        # Whole or not at all: a monitor may be reading, or running, what stood here before.
        fresh = file.with_name(f"{file.name}.new")
        fresh.write_bytes(data)
        fresh.chmod(0o755 if executable else 0o644)
        fresh.replace(file)
        return self

    def write_all(self, folder: str, values: dict[str, Union[str, int]]) -> Tree:
        for name, value in values.items():
            self.write(f"{folder}/{name}", value)
        return self

    def device_tree(self, model: str, compatible: Sequence[str], serial: Optional[str] = None) -> Tree:
        """As on a board: `/proc/device-tree` is an absolute link into `/sys`."""
        base = "sys/firmware/devicetree/base"
        self.write(f"{base}/model", model.encode() + b"\0")
        self.write(f"{base}/compatible", b"".join(name.encode() + b"\0" for name in compatible))
        if serial is not None:
            self.write(f"{base}/serial-number", serial.encode() + b"\0")
        (self.root / "proc").mkdir(exist_ok=True)
        (self.root / "proc/device-tree").symlink_to("/sys/firmware/devicetree/base")
        return self

    def cpus(self, count: int, features: str = ARM64_FEATURES, *, architecture: int = 8, tail: str = "") -> Tree:
        core = f"BogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU architecture: {architecture}\n\n"
        self.write("proc/cpuinfo", "".join(f"processor\t: {n}\n{core}" for n in range(count)) + tail)
        return self.write("sys/devices/system/cpu/online", f"0-{count - 1}" if count > 1 else "0")

    def memory(self, total_kb: int) -> Tree:
        rows = {"MemTotal": total_kb, "MemAvailable": total_kb // 2, "SwapTotal": 102400, "SwapFree": 51200}
        return self.write("proc/meminfo", "\n".join(f"{name}: {value} kB" for name, value in rows.items()))

    def clock(self, count: int, khz: int, governor: str = "ondemand") -> Tree:
        for core in range(count):
            folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
            self.write_all(folder, {"scaling_cur_freq": khz, "scaling_governor": governor})
        return self

    def zone(self, number: int, kind: str, millidegrees: Union[int, str]) -> Tree:
        return self.write_all(f"sys/class/thermal/thermal_zone{number}", {"type": kind, "temp": millidegrees})

    def program(self, path: str, machine: int, *, bits: int = 64) -> Tree:
        """An ELF file that is no more than its header."""
        ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
        return self.write(path, ident + struct.pack("<HHI", 2, machine, 1) + bytes(40), executable=True)

    def script(self, name: str, body: str) -> Tree:
        return self.write(f"usr/bin/{name}", f"#!/bin/sh\n{body}", executable=True)

    def vcgencmd(self, throttled: str = "0x0", temperature: str = "48.7", mhz: int = 1800, pmic: str = "") -> Tree:
        reads = f'pmic_read_adc) printf "{pmic}" ;;' if pmic else ""
        return self.script(
            "vcgencmd",
            f"""case "$1" in
  get_throttled) echo "throttled={throttled}" ;;
  measure_temp) echo "temp={temperature}'C" ;;
  measure_clock) echo "frequency(48)={mhz}000000" ;;
  {reads}
  *) echo 'error=1 error_msg="Command not registered"'; exit 255 ;;
esac""",
        )


def _pi(root: Path, model: str, compatible: Sequence[str], cores_mhz: int, memory_kb: int, celsius: float) -> Tree:
    tree = Tree(root).device_tree(model, compatible, serial="10000000abcdef01")
    tree.cpus(4, tail=f"Revision\t: c03114\nSerial\t\t: 10000000abcdef01\nModel\t\t: {model}\n")
    tree.clock(4, cores_mhz * 1000).memory(memory_kb).zone(0, "cpu-thermal", int(celsius * 1000))
    tree.write_all("sys/class/hwmon/hwmon1", {"name": "rpi_volt", "in0_lcrit_alarm": 0})
    return tree.write("etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian')


def pi_zero_2_w(root: Path) -> Tree:
    compatible = ["raspberrypi,model-zero-2-w", "brcm,bcm2837"]
    return _pi(root, "Raspberry Pi Zero 2 W Rev 1.0", compatible, 1000, 437_352, 44.0)


def pi_3b_plus(root: Path) -> Tree:
    compatible = ["raspberrypi,3-model-b-plus", "brcm,bcm2837"]
    return _pi(root, "Raspberry Pi 3 Model B Plus Rev 1.3", compatible, 1400, 944_264, 53.7)


def pi_4(root: Path) -> Tree:
    compatible = ["raspberrypi,4-model-b", "brcm,bcm2711"]
    tree = _pi(root, "Raspberry Pi 4 Model B Rev 1.4", compatible, 1800, 3_885_396, 48.7)
    return tree.program("usr/bin/dash", EM_AARCH64).program("usr/bin/python3.11", EM_AARCH64)


def pi_4_32bit(root: Path) -> Tree:
    """32-bit Raspberry Pi OS on the 64-bit kernel that it starts by default: only the userland tells."""
    compatible = ["raspberrypi,4-model-b", "brcm,bcm2711"]
    tree = _pi(root, "Raspberry Pi 4 Model B Rev 1.4", compatible, 1800, 3_885_396, 48.7)
    tree.write("etc/os-release", 'PRETTY_NAME="Raspbian GNU/Linux 12 (bookworm)"\nID=raspbian')
    tree.write("proc/version", "Linux version 6.6.31+rpt-rpi-v8 (serge@raspberrypi.com) (aarch64-linux-gnu-gcc-12)")
    return tree.program("usr/bin/dash", EM_ARM, bits=32).program("usr/bin/python3", EM_ARM, bits=32)


def pi_5(root: Path) -> Tree:
    compatible = ["raspberrypi,5-model-b", "brcm,bcm2712"]
    return _pi(root, "Raspberry Pi 5 Model B Rev 1.0", compatible, 2400, 4_135_920, 51.6)


def _jetson(root: Path, model: str, compatible: Sequence[str], cores: int, memory_kb: int, release: str) -> Tree:
    tree = Tree(root).device_tree(model, compatible, serial="1420921055981").cpus(cores).memory(memory_kb)
    tree.clock(cores, 1_420_800, "schedutil")
    return tree.write("etc/nv_tegra_release", f"# {release}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Tue")


def _rockchip(root: Path, model: str, compatible: Sequence[str], cores: int, memory_kb: int) -> Tree:
    tree = Tree(root).device_tree(model, compatible, serial="a1b2c3d4e5f60718")
    tree.cpus(cores).clock(cores, 1_800_000).memory(memory_kb).zone(0, "soc-thermal", 45_300)
    return tree.write("etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian')


def orange_pi_5(root: Path) -> Tree:
    """A vendor kernel: the NPU's driver, its own thermal zone, and debugfs that this process can read."""
    tree = _rockchip(root, "Orange Pi 5", ["rockchip,rk3588s-orangepi-5", "rockchip,rk3588"], 8, 8_130_000)
    tree.zone(6, "npu-thermal", 47_200)
    tree.write("sys/class/devfreq/fdab0000.npu/cur_freq", 1_000_000_000)
    return tree.write("sys/kernel/debug/rknpu/load", "NPU load:  Core0: 68%, Core1:  7%, Core2:  0%,")


def rock_5b(root: Path) -> Tree:
    return _rockchip(root, "Radxa ROCK 5 Model B", ["radxa,rock-5b", "rockchip,rk3588"], 8, 16_330_000)


def zero_3w(root: Path) -> Tree:
    return _rockchip(root, "Radxa ZERO 3W", ["radxa,zero-3w", "rockchip,rk3566"], 4, 1_980_000)


def jetson_nano(root: Path) -> Tree:
    compatible = ["nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,jetson-nano", "nvidia,tegra210"]
    release = "R32 (release), REVISION: 7.1"
    tree = _jetson(root, "NVIDIA Jetson Nano Developer Kit", compatible, 4, 4_059_248, release)
    tree.zone(0, "AO-therm", 45_000).zone(1, "CPU-therm", 40_500).zone(2, "PMIC-Die", 50_000)
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    for number, (rail, milliamperes) in enumerate([("POM_5V_IN", 348), ("POM_5V_GPU", 0), ("POM_5V_CPU", 73)]):
        tree.write_all(
            folder,
            {
                f"rail_name_{number}": rail,
                f"in_voltage{number}_input": 5000,
                f"in_current{number}_input": milliamperes,
                f"in_power{number}_input": 5 * milliamperes,
            },
        )
    return tree


def jetson_xavier_nx(root: Path) -> Tree:
    compatible = ["nvidia,p3509-0000+p3668-0000", "nvidia,tegra194"]
    release = "R35 (release), REVISION: 4.1"
    tree = _jetson(root, "NVIDIA Jetson Xavier NX Developer Kit", compatible, 6, 7_135_424, release)
    tree.zone(0, "CPU-therm", 56_000).zone(1, "GPU-therm", 57_000)
    tree.write(
        "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MODE_15W_2CORE >\n< POWER_MODEL ID=2 NAME=MODE_15W_6CORE >"
    )
    return tree.write("var/lib/nvpmodel/status", "pmode:0002")


def jetson_orin_nano(root: Path) -> Tree:
    compatible = ["nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"]
    model = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    tree = _jetson(root, model, compatible, 6, 7_802_000, "R36 (release), REVISION: 4.3")
    # The cv zones exist and answer with an error while their engines are off.
    tree.zone(0, "cv0-thermal", "").zone(1, "cpu-thermal", 48_531).zone(2, "tj-thermal", 49_187)
    chip = {"name": "ina3221", "in7_label": "sum of shunt voltages", "in7_input": 0}
    for number, (rail, milliamperes) in enumerate([("VDD_IN", 888), ("VDD_CPU_GPU_CV", 157), ("NC", 0)], 1):
        chip.update({f"in{number}_label": rail, f"in{number}_input": 5000, f"curr{number}_input": milliamperes})
        chip[f"curr{number}_crit_alarm"] = 0
    tree.write_all("sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3", chip)
    return tree.write_all("sys/class/hwmon/hwmon3", chip)


def coral_dev_board(root: Path) -> Tree:
    tree = Tree(root).device_tree("Freescale i.MX8MQ Phanbell", ["google,imx8mq-phanbell", "fsl,imx8mq"])
    tree.cpus(4).memory(1_003_528).clock(4, 1_500_000, "performance").zone(0, "cpu-thermal0", 54_000)
    return tree.write("etc/mendel_version", "5.3")


def laptop(root: Path) -> Tree:
    """An x86 laptop as Lenovo fills in its DMI fields."""
    tree = Tree(root).memory(16_123_456)
    fields = {"sys_vendor": "LENOVO", "product_name": "20XWCTO1WW", "product_version": "ThinkPad X1 Carbon Gen 9"}
    tree.write_all("sys/class/dmi/id", {**fields, "board_name": "20XWCTO1WW", "chassis_type": 10})
    core = "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i7-1165G7\nflags\t\t: fpu sse2 lm avx2\n\n"
    tree.write("proc/cpuinfo", "".join(f"processor\t: {number}\n{core}" for number in range(8)))
    tree.write("sys/devices/system/cpu/online", "0-7").write("etc/machine-id", "0123456789abcdef0123456789abcdef")
    tree.write("etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nID=ubuntu')
    tree.zone(0, "acpitz", 27_800).zone(1, "x86_pkg_temp", 61_000)
    return tree.program("usr/bin/env", EM_X86_64)


def container(root: Path) -> Tree:
    """Docker on that laptop, started with `--cpus 2 --memory 512m` (cgroup v2)."""
    tree = laptop(root).write(".dockerenv", b"").write("proc/self/cgroup", "0::/")
    return tree.write("sys/fs/cgroup/cpu.max", "200000 100000").write("sys/fs/cgroup/memory.max", 512 << 20)


def pi_container(root: Path) -> Tree:
    """Docker on a Pi 4: the device tree is masked there, `/proc/cpuinfo` is the host's."""
    tree = pi_4(root)
    (root / "proc/device-tree").unlink()
    for name in ("model", "compatible", "serial-number"):
        (root / "sys/firmware/devicetree/base" / name).unlink()
    return tree.write(".dockerenv", b"")
