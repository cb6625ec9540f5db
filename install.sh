#!/bin/sh
# Installs edge-mnv2 for one user on Debian, Ubuntu or Raspberry Pi OS. `./install.sh --help` says how.
#
# Layout below --prefix: `venvs/N` are virtual environments, `current` points to the one in use, and the command in
# --bin points through `current`. A new version is built beside the old one and takes its place only after its own
# `edge-mnv2 doctor`, so an upgrade that fails or is cut short changes nothing.
#
# For tests, EDGE_MNV2_INSTALL_ROOT is a folder that stands for / where the machine is looked at and where system
# files are written.
set -eu

root=${EDGE_MNV2_INSTALL_ROOT:-}
here=$(cd "$(dirname "$0")" && pwd -P)
need_mb=600
# What the newest LiteRT that this release knows is built for; pip would search long and then fail obscurely.
newest_python=14
# How pip says that it did not get through.
no_connection='Temporary failure|Name or service|Network is unreachable|NewConnectionError|Connection (refused|broken|reset)'
no_connection="$no_connection|Read timed out|ConnectTimeout|ProxyError|SSLError|CERTIFICATE_VERIFY"

usage() {
    cat <<'END'
usage: ./install.sh [options]            install, or upgrade what is installed
       ./install.sh --uninstall
       ./install.sh --make-wheelhouse DIR --arch aarch64 --python 3.11

  --prefix DIR         where the environment goes (default ~/.local/share/edge-mnv2)
  --bin DIR            where the command is linked (default ~/.local/bin)
  --python PROGRAM     the Python to build on (default: the system's)
  --extras LIST        optional parts, such as web,mqtt; an upgrade keeps them; "none" drops them
  --system-packages auto|yes|no
                       see the system's Python packages (picamera2, python3-opencv); auto: on Raspberry Pi, Jetson
                       and 32-bit Arm
  --wheelhouse DIR     install from the files in DIR, without a network
  --edgetpu[=std|max]  also set up a Coral Edge TPU: runtime, udev rules, group; asks for sudo; std (default) is the
                       normal clock, max is faster and hot enough to need cooling
  --service [-- ARGS]  also start at boot: runs `edge-mnv2 service install ARGS` (for example -- --camera 0)
  --dry-run            say what would be done and change nothing
  --uninstall          remove the environment and the command; models and profiles stay
  --verbose            show what pip says
  --help

Making a wheelhouse, on a PC with a network; then take DIR to the board and run `sh DIR/install.sh` there:
  --make-wheelhouse DIR
  --arch NAME          aarch64 (64-bit Pi, Jetson), armv7l (32-bit Pi OS) or x86_64
  --python X.Y         the board's Python: 3.11 for Bookworm, 3.13 for Trixie, 3.10 for JetPack 6
  --glibc X.Y          the board's C library, where it is older than is usual for that Python
END
}

say() { printf '%s\n' "$*"; }
note() { printf '  %s\n' "$*"; }
warn() { printf 'install.sh: %s\n' "$*" >&2; }

# die CODE WHAT [WHAT TO DO...]: one line, then the remedy below it.
die() {
    die_code=$1
    shift
    warn "$1"
    shift
    for die_line in "$@"; do printf '  %s\n' "$die_line" >&2; done
    exit "$die_code"
}

as_words() {
    gap=''
    for word in "$@"; do
        case $word in
        '' | *[!A-Za-z0-9_./:=,+@%-]*) word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'" ;;
        esac
        printf '%s%s' "$gap" "$word"
        gap=' '
    done
}

# run COMMAND...: the one way in which anything is changed, so that --dry-run cannot tell another story.
run() {
    if [ -n "$dry_run" ]; then
        note "$(as_words "$@")"
    elif [ -n "$verbose" ] || [ -z "$log" ]; then
        "$@"
    else
        printf '+ %s\n' "$(as_words "$@")" >>"$log"
        "$@" >>"$log" 2>&1
    fi
}

# ---------------------------------------------------------------------------------------------------- arguments

prefix='' bin='' python='' extras='' extras_given='' system_packages=auto wheelhouse='' make_wheelhouse='' arch=''
glibc='' edgetpu='' service='' dry_run='' uninstall='' verbose='' log='' work=''

absolute() {
    case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s/%s' "$PWD" "$1" ;;
    esac
}

while [ $# -gt 0 ]; do
    option=$1
    shift
    case $option in
    --edgetpu | --service | --dry-run | --uninstall | --verbose | --help) value='' ;;
    -h) option=--help ;;
    -n) option=--dry-run ;;
    -v) option=--verbose ;;
    --edgetpu=*)
        value=${option#*=}
        option=--edgetpu
        ;;
    --*=*)
        value=${option#*=}
        option=${option%%=*}
        ;;
    --prefix | --bin | --python | --extras | --system-packages | --wheelhouse | --make-wheelhouse | --arch | --glibc)
        [ $# -gt 0 ] || die 2 "$option needs a value" "see ./install.sh --help"
        value=$1
        shift
        ;;
    esac
    case $option in
    --prefix | --bin | --python | --wheelhouse | --make-wheelhouse | --arch | --glibc)
        [ -n "$value" ] || die 2 "$option needs a value" "see ./install.sh --help"
        ;;
    esac
    case $option in
    --prefix) prefix=$(absolute "$value") ;;
    --bin) bin=$(absolute "$value") ;;
    --python) python=$value ;;
    --extras)
        extras_given=1
        extras=$(printf '%s' "$value" | tr -d ' ')
        case $extras in
        none) extras='' ;;
        *[!A-Za-z0-9,_-]*) die 2 "--extras $value" "a list such as web,mqtt" ;;
        esac
        ;;
    --system-packages)
        case $value in
        auto | yes | no) system_packages=$value ;;
        *) die 2 "--system-packages $value" "auto, yes or no" ;;
        esac
        ;;
    --wheelhouse) wheelhouse=$(absolute "$value") ;;
    --make-wheelhouse) make_wheelhouse=$(absolute "$value") ;;
    --arch) arch=$value ;;
    --glibc) glibc=$value ;;
    --edgetpu)
        case ${value:-std} in
        std | max) edgetpu=${value:-std} ;;
        *) die 2 "--edgetpu=$value" "std (normal clock) or max (faster, needs cooling)" ;;
        esac
        ;;
    --service) service=1 ;;
    --dry-run) dry_run=1 ;;
    --uninstall) uninstall=1 ;;
    --verbose) verbose=1 ;;
    --help)
        usage
        exit 0
        ;;
    --) break ;;
    *) die 2 "unknown option $option" "see ./install.sh --help" ;;
    esac
done
# What is left in "$@" came after `--` and belongs to `edge-mnv2 service install`.
[ $# -eq 0 ] || [ -n "$service" ] || die 2 "unexpected $*" "arguments after -- belong to --service"

[ -n "${HOME:-}" ] || [ -n "$prefix$make_wheelhouse" ] || die 2 "HOME is not set" "set it, or give --prefix and --bin"
: "${prefix:=${HOME:-}/.local/share/edge-mnv2}"
: "${bin:=${HOME:-}/.local/bin}"
current=$prefix/current
command=$bin/edge-mnv2
unit=$root/etc/systemd/system/edge-mnv2.service
own_unit=${XDG_CONFIG_HOME:-${HOME:-}/.config}/systemd/user/edge-mnv2.service

# What would make pip write elsewhere, or Python see packages of another place. Indexes, proxies, certificates and
# every other setting of this machine's pip stay as they are.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT || :
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_WARN_SCRIPT_LOCATION=1

# ---------------------------------------------------------------------------------------------------- Python parts

# Facts about a Python, as shell assignments. Old Pythons must be able to read it, to be told that they are old.
# shellcheck disable=SC2016
probe_code='
import os, sys, platform
def have(name):
    try:
        __import__(name)
    except Exception:
        return ""
    return "1"
def there(name):
    import importlib.util
    return "1" if importlib.util.find_spec(name) else ""
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (ValueError, OSError):
    libc = ""
numpy = ""
try:
    from importlib import metadata
    numpy = metadata.version("numpy")
except Exception:
    pass
facts = [("py_minor", "%d.%d" % tuple(sys.version_info[:2])), ("py_full", "%d.%d.%d" % tuple(sys.version_info[:3])),
         ("py_bits", "64" if sys.maxsize > 2**32 else "32"), ("py_libc", libc.replace("glibc ", "")),
         ("py_kind", platform.python_implementation()), ("py_venv", have("venv") and have("ensurepip")),
         ("sys_numpy", numpy), ("sys_picamera2", there("picamera2")), ("sys_pillow", there("PIL")),
         ("sys_yaml", there("yaml"))]
for name, text in facts:
    print("%s=\"%s\"" % (name, "".join(c for c in text if c.isalnum() or c in ".+-_")))
'

# What a wheel of ours asks for, in the environment of the machine that it is for, one requirement a line.
# pip evaluates markers for the machine that it runs on, and as the kernel names it: it is wrong for a 32-bit system
# on a 64-bit kernel, which is what 32-bit Raspberry Pi OS is on a Pi 4.
requirements_code='
import sys, zipfile
from email.parser import Parser
from pip._vendor.packaging.markers import default_environment
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf-8"))

def environment(machine, python):
    minor = ".".join(python.split(".")[:2])
    target = dict(default_environment(), platform_machine=machine, python_version=minor, sys_platform="linux",
                  python_full_version=python, platform_system="Linux", os_name="posix", implementation_name="cpython",
                  platform_python_implementation="CPython", implementation_version=python)
    return target

def wanted(head, extras, target):
    for text in head.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(
            requirement.marker.evaluate(dict(target, extra=extra)) for extra in ["", *extras]
        ):
            requirement.marker = None
            yield requirement
'

# Arguments: wheel, extras, machine, Python, names to leave out.
own_requirements_code="$requirements_code"'
wheel, extras, machine, python, without = sys.argv[1:]
head = metadata(wheel)
extras = [canonicalize_name(each) for each in extras.split(",") if each]
known = [canonicalize_name(each) for each in head.get_all("Provides-Extra") or []]
for extra in extras:
    if extra not in known:
        sys.exit("there is no extra " + extra + ": there are " + ", ".join(sorted(known)))
target, own, todo, done = environment(machine, python), canonicalize_name(head["Name"]), list(extras), []
while True:
    found = list(wanted(head, todo, target))
    inner = [canonicalize_name(each) for one in found if canonicalize_name(one.name) == own for each in one.extras]
    inner = [each for each in inner if each not in todo]
    if not inner:
        break
    todo += inner
for one in found:
    name = canonicalize_name(one.name)
    if name != own and name not in without.split():
        print(one)
'

# Arguments: folder, machine, Python, names to leave out, file with the first requirements. Prints what the wheels in
# the folder still ask for, and nothing when they are complete.
closure_code="$requirements_code"'
import pathlib
folder, machine, python, without, first = sys.argv[1:]
target = environment(machine, python)
heads = {}
for wheel in sorted(pathlib.Path(folder).glob("*.whl")):
    head = metadata(wheel)
    heads[canonicalize_name(head["Name"])] = head
todo = [Requirement(line) for line in pathlib.Path(first).read_text().split("\n") if line]
asked, seen = {}, set()
while todo:
    one = todo.pop()
    name = canonicalize_name(one.name)
    if name in without.split() or (name, str(one)) in seen:
        continue
    seen.add((name, str(one)))
    asked.setdefault(name, []).append(one)
    if name in heads:
        todo.extend(wanted(heads[name], list(one.extras), target))
for name, ones in sorted(asked.items()):
    if name not in heads:
        print(name + ",".join(str(one.specifier) for one in ones if str(one.specifier)))
'

probe() {
    py_minor='' py_full='' py_bits='' py_libc='' py_kind='' py_venv=''
    sys_numpy='' sys_picamera2='' sys_pillow='' sys_yaml=''
    # -I: not the packages that somebody has under ~/.local or in the working directory.
    probed=$("$1" -I -c "$probe_code" 2>/dev/null) || return 1
    eval "$probed"
    [ -n "$py_minor" ]
}

py_supported() {
    case $py_minor in 3.*) ;; *) return 1 ;; esac
    [ "${py_minor#3.}" -ge 9 ] && [ "${py_minor#3.}" -le $newest_python ]
}

# version_below A B: A < B, as dotted numbers.
version_below() {
    [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -t. -k1,1n -k2,2n | head -n 1)" = "$1" ]
}

# The numpy that this Python may have. Modules compiled by the distribution (OpenCV, picamera2's simplejpeg) were
# built against its numpy: a newer one of the same major serves them, another major does not. Where apt's numpy is not
# there yet, the one that the distribution with this Python has is assumed: `apt install python3-picamera2` may follow.
numpy_constraint() { # PYTHON-MINOR [SYSTEM-NUMPY]
    if [ -n "${2:-}" ]; then
        say "numpy>=$2,<$((${2%%.*} + 1))"
    elif [ "${1#3.}" -lt 13 ]; then
        say 'numpy<2'
    else
        say 'numpy>=2,<3'
    fi
}

# ---------------------------------------------------------------------------------------------------- the machine

file_text() { tr -d '\0' <"$1" 2>/dev/null | head -n 1; }

look_at_machine() {
    [ "$(uname -s)" = Linux ] || die 1 "edge-mnv2 runs on Linux; this is $(uname -s)"
    machine=$(uname -m)
    os_name='this Linux' os_id=''
    if [ -r "$root/etc/os-release" ]; then
        # shellcheck disable=SC1091,SC2153
        os_name=$(. "$root/etc/os-release" && printf '%s' "${PRETTY_NAME:-${NAME:-this Linux}}")
        # shellcheck disable=SC1091,SC2153
        os_id=$(. "$root/etc/os-release" && printf '%s' "${ID:-}")
    fi
    board=''
    for file in "$root/proc/device-tree/model" "$root/sys/firmware/devicetree/base/model"; do
        if [ -r "$file" ]; then
            board=$(file_text "$file")
            break
        fi
    done
    kind=''
    case $board in
    *"Raspberry Pi"*) kind=pi ;;
    *Jetson* | *NVIDIA*) kind=jetson ;;
    esac
    if [ -e "$root/etc/rpi-issue" ]; then kind=pi; fi
    jetpack=''
    if [ -e "$root/etc/nv_tegra_release" ]; then
        kind=jetson
        case $(file_text "$root/etc/nv_tegra_release") in
        *R32*) jetpack=4 ;;
        *R35*) jetpack=5 ;;
        *R36*) jetpack=6 ;;
        esac
    fi
}

choose_python() {
    if [ -n "$python" ]; then
        command -v "$python" >/dev/null 2>&1 || die 2 "--python $python: there is no such program"
        python=$(command -v "$python")
        probe "$python" || die 2 "--python $python: this is no Python 3 that works"
    else
        python=''
        # The system's packages belong to the system's Python, whatever stands first on PATH.
        case $kind-$machine-$system_packages in
        ?*-*-* | *-armv*-* | *-yes) candidates="$root/usr/bin/python3 python3" ;;
        *) candidates="python3 $root/usr/bin/python3" ;;
        esac
        for candidate in $candidates; do
            candidate=$(command -v "$candidate" 2>/dev/null) || continue
            if probe "$candidate"; then
                python=$candidate
                break
            fi
        done
        [ -n "$python" ] || die 1 "there is no Python 3" "sudo apt install python3 python3-venv, then run this again"
    fi
    # A 32-bit system on a 64-bit kernel takes 32-bit packages, whatever the kernel calls itself.
    case $machine-$py_bits in
    aarch64-32 | armv8l-*) machine=armv7l ;;
    x86_64-32) machine=i686 ;;
    esac
}

refuse_unsupported() {
    range="3.9 to 3.$newest_python"
    case $machine in
    x86_64 | aarch64) ;;
    armv7l)
        case $py_minor in
        3.9 | 3.10 | 3.11) ;;
        3.1[2-9] | 3.[2-9]?)
            die 1 "Python $py_minor on 32-bit Arm: no interpreter for .tflite models is published for it" \
                "Install the 64-bit Raspberry Pi OS: every Pi since the 3 and Zero 2 runs it, and it is faster." \
                "32-bit works on Bookworm (Python 3.11)."
            ;;
        esac
        if version_below "${py_libc:-0}" 2.34 && py_supported; then
            die 1 "$os_name, 32-bit: its C library ($py_libc) is older than the 2.34 that the interpreter needs" \
                "Install Raspberry Pi OS Bookworm or newer, the 64-bit one where the board can."
        fi
        ;;
    armv6l)
        die 1 "this processor (ARMv6: Pi 1, Zero, Zero W) is not supported: no interpreter is published for it" \
            "A Pi Zero 2 W has the same size and runs the 64-bit system."
        ;;
    i?86)
        die 1 "32-bit x86 is not supported: no interpreter is published for it" "Install a 64-bit system."
        ;;
    *)
        die 1 "$machine is not supported: no interpreter is published for it" "x86_64, aarch64 and armv7l work."
        ;;
    esac
    [ -n "$py_libc" ] || die 1 "$os_name: no GNU C library, and the packages are built for it" \
        "Use Debian, Ubuntu or Raspberry Pi OS, or a container of one of them."
    if version_below "$py_libc" 2.27; then
        die 1 "$os_name: its C library ($py_libc) is older than 2.27" "Install a newer release of the system."
    fi
    [ "$py_kind" = CPython ] || die 1 "$python is $py_kind: the packages are built for CPython" \
        "Give another one: ./install.sh --python /usr/bin/python3"
    py_supported && return

    if [ -z "$python_given" ]; then
        for candidate in python3.13 python3.12 python3.11 python3.10 python3.9 python3.14; do
            candidate=$(command -v "$candidate" 2>/dev/null) || continue
            if old=$py_minor && probe "$candidate" && py_supported; then
                python=$candidate
                say "Python $old is not supported; using $candidate (Python $py_full)"
                return
            fi
            py_minor=$old
        done
    fi
    if [ "${py_minor#3.}" -gt $newest_python ] 2>/dev/null; then
        die 1 "Python $py_minor is newer than this release knows: it needs $range" \
            "Give an older one: ./install.sh --python python3.13"
    fi
    own="Build or fetch a Python of your own, no root needed, with Miniforge or pyenv, for example:"
    what="Python $py_minor of $os_name is too old: $range is needed"
    if [ "$jetpack" = 4 ] || [ -e "$root/etc/mendel_version" ]; then
        die 1 "$what" "$own" \
            "  conda create -y -p ~/python311 python=3.11 && ./install.sh --python ~/python311/bin/python" \
            "This system's C library is new enough. CSI cameras go through GStreamer there: see the README."
    elif [ "$jetpack" = 5 ] || { [ "$os_id" = ubuntu ] && [ "$py_minor" = 3.8 ]; }; then
        die 1 "$what" "sudo apt install python3.9 python3.9-venv && ./install.sh --python python3.9"
    fi
    die 1 "$what" "$own" "  conda create -y -p ~/python311 python=3.11 && ./install.sh --python ~/python311/bin/python" \
        "or install a newer release of the system."
}

# Whether the environment sees the system's packages, and what it then takes from there.
choose_packages() {
    see_system=''
    case $system_packages in
    yes) see_system=1 ;;
    auto)
        # Another Python than the system's has no packages of the system to see.
        if { [ -n "$kind" ] || [ "$machine" = armv7l ]; } && [ "$(dirname "$python")" = "$root/usr/bin" ]; then
            see_system=1
        fi
        ;;
    esac
    sys_cv2='' left_out=''
    if [ -n "$see_system" ]; then
        # OpenCV that is there serves: two of them in one process clash, and another one is 150 MB for nothing. It has
        # to import, though: a broken one (no libGL, numpy of another major) is covered by the wheel.
        sys_cv2=$("$python" -I -c 'import cv2; print(cv2.__version__)' 2>/dev/null) || sys_cv2=''
        case $sys_cv2 in *[!0-9.a-z+-]*) sys_cv2='' ;; esac
    fi
    if [ -n "$sys_cv2" ]; then left_out='opencv-python-headless opencv-python'; fi
    missing=''
    if [ "$machine" = armv7l ]; then
        # No wheels of these on the main index; building numpy on a Pi takes hours.
        [ -n "$sys_numpy" ] || missing="$missing python3-numpy"
        [ -n "$sys_pillow" ] || missing="$missing python3-pil"
        [ -n "$sys_yaml" ] || missing="$missing python3-yaml"
        [ -n "$sys_cv2" ] || missing="$missing python3-opencv"
        if [ -z "$see_system" ]; then missing=''; fi
    fi
}

refuse_unprepared() {
    if [ -z "$py_venv" ]; then
        package=python3-venv
        if [ "$(basename "$python")" != python3 ]; then package=python$py_minor-venv; fi
        die 1 "$python cannot make virtual environments: a package is missing" \
            "sudo apt install $package, then run this again"
    fi
    if [ -n "$missing" ]; then
        die 1 "32-bit Arm takes these from the system, and they are missing:$missing" \
            "sudo apt install$missing, then run this again"
    fi
    if [ -n "${SUDO_USER:-}" ] && [ "$(id -u)" = 0 ] && [ "$prefix" = "${HOME:-}/.local/share/edge-mnv2" ] && [ "$SUDO_USER" != root ]; then
        die 2 "under sudo this would install for root, not for $SUDO_USER" "run it without sudo"
    fi
    case $prefix in
    *:*) die 2 "--prefix $prefix: a virtual environment cannot lie in a folder with a colon in its name" ;;
    esac
    if [ -e "$current" ] && [ ! -L "$current" ]; then
        die 2 "$current is not a link of this installer" "move it away, or choose another --prefix"
    fi
    if [ -e "$command" ] || [ -L "$command" ]; then
        is_our_link || die 2 "$command is there and does not belong to $prefix" "move it away, or choose another --bin"
    fi
    for folder in "$prefix" "$bin"; do
        place=$folder
        while [ ! -e "$place" ]; do place=$(dirname "$place"); done
        if [ ! -d "$place" ] || [ ! -w "$place" ]; then
            die 2 "$folder cannot be made: no right to write to $place" \
                "choose folders of yours with --prefix and --bin"
        fi
        if [ "$folder" = "$prefix" ]; then
            free_mb=$(df -Pm "$place" 2>/dev/null | awk 'NR == 2 { print $4 }')
            case $free_mb in '' | *[!0-9]*) free_mb=$need_mb ;; esac
            [ "$free_mb" -ge $need_mb ] ||
                die 1 "$place has $free_mb MB free: about $need_mb MB are needed" "make room, or choose another --prefix"
        fi
    done
}

# ---------------------------------------------------------------------------------------------------- installing

is_our_link() {
    [ -L "$command" ] || return 1
    case $(readlink "$command") in
    "$current"/*) return 0 ;;
    esac
    # A link whose installation was moved or half removed is ours too, by its form.
    [ ! -e "$command" ] && case $(readlink "$command") in */current/bin/edge-mnv2) return 0 ;; *) return 1 ;; esac
}

active_venv() {
    if [ -L "$current" ]; then readlink -f "$current"; fi
}

# shellcheck disable=SC2317  # called by the traps
clean_up() {
    code=$?
    trap - EXIT HUP INT TERM
    if [ -n "$new" ]; then rm -rf "$new"; fi
    if [ -n "$work" ]; then rm -rf "$work"; fi
    exit "$code"
}

# shellcheck disable=SC2317  # called by the traps
stopped() {
    if [ -n "$new" ]; then warn "stopped: nothing was changed"; fi
    exit 130
}

begin() {
    if [ -n "$dry_run" ]; then
        work=$prefix/.work
        return
    fi
    trap clean_up EXIT
    trap stopped HUP INT TERM
    mkdir -p "$prefix/venvs" || die 1 "$prefix cannot be made"
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$prefix/.lock"
        flock -n 9 || die 1 "another install.sh is at work in $prefix" "wait until it has ended"
    fi
    # On the disk of the environment: /tmp is often memory, and the downloads are larger than a small board has.
    work=$(mktemp -d "$prefix/.work.XXXXXX")
    export TMPDIR="$work"
    log=$prefix/install.log
    : >"$log"
    # What a power cut left of an earlier attempt needs room that this one needs.
    remove_unused >/dev/null
}

# explain_pip WHAT: the last thing that pip complained of, and what it means.
explain_pip() {
    [ -z "$verbose" ] || die 1 "$1 failed"
    cause=$(grep -E '^ *(ERROR|error):' "$log" | tail -n 1 | sed 's/^ *//' | cut -c 1-300)
    story="the whole story is in $log"
    if grep -qi 'no space left' "$log"; then
        die 1 "$1 failed: the disk is full" "make room, or choose another --prefix"
    elif [ -n "$wheelhouse" ]; then
        die 1 "$1 failed: $wheelhouse lacks something that this machine needs" "$cause" \
            "fill it on a PC: ./install.sh --make-wheelhouse DIR --arch $machine --python $py_minor" "$story"
    elif grep -qE "$no_connection" "$log"; then
        die 7 "$1 failed: the package index could not be reached" "$cause" \
            "without a network: --make-wheelhouse DIR on a PC, then --wheelhouse DIR here" "$story"
    fi
    die 1 "$1 failed" "${cause:-pip gave no reason}" "$story"
}

pip() { run "$new/bin/python" -m pip "$@"; }

make_environment() {
    number=1
    while [ -e "$prefix/venvs/$number" ]; do number=$((number + 1)); done
    new=$prefix/venvs/$number
    run "$python" -m venv ${see_system:+--system-site-packages} "$new" ||
        die 1 "$python could not make a virtual environment in $new" "see $log"
    [ -z "$dry_run" ] || return 0
    if [ -n "$see_system" ]; then
        # The system's packages, yes; those that the user once put under ~/.local, no: a numpy 2 there would come
        # before apt's numpy 1 and break picamera2. This is read before the user's folder is looked at, in every
        # process of this environment.
        site=$("$new/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
        say 'import site; site.ENABLE_USER_SITE = False' >"$site/edge_mnv2_no_user_site.pth"
    fi
}

# Our own wheel: out of the wheelhouse, else built from the folder that this file lies in.
find_own_wheel() {
    if [ -n "$wheelhouse" ]; then
        own_wheel=$(newest_own_wheel "$wheelhouse")
        [ -n "$own_wheel" ] || die 2 "--wheelhouse $wheelhouse: there is no edge_mnv2-*.whl in it" \
            "fill it on a PC: ./install.sh --make-wheelhouse DIR --arch $machine --python $py_minor"
        return
    fi
    [ -f "$here/pyproject.toml" ] || die 2 "$here holds neither the project nor a wheelhouse" \
        "run install.sh from a clone of the project, or give --wheelhouse DIR"
    pip wheel -q --no-deps -w "$work" "$here" || explain_pip "building edge-mnv2"
    if [ -n "$dry_run" ]; then own_wheel='the wheel just built'; else own_wheel=$(newest_own_wheel "$work"); fi
}

newest_own_wheel() { find "$1" -maxdepth 1 -name 'edge_mnv2-*.whl' | sort -V | tail -n 1; }

wheel_version() { basename "$1" | cut -d- -f2; }

install_packages() {
    find_own_wheel
    offline=''
    if [ -n "$wheelhouse" ]; then offline=1; fi
    constraint=''
    if [ -n "$see_system" ]; then constraint=$(numpy_constraint "$py_minor" "$sys_numpy"); fi
    if [ -n "$dry_run" ]; then
        note "pip install, into $new: what edge-mnv2${extras:+[$extras]} asks for${left_out:+, without $left_out}${constraint:+, with $constraint}${offline:+, from $wheelhouse alone}"
        note "pip install --no-deps: $own_wheel"
        return
    fi
    "$new/bin/python" -c "$own_requirements_code" "$own_wheel" "$extras" "$machine" "$py_full" "$left_out" \
        >"$work/requirements.txt" 2>"$work/complaint" || die 2 "--extras $extras: $(tail -n 1 "$work/complaint")"
    say "$constraint" >"$work/constraints.txt"
    # Wheels only: a board would compile for hours where a wheel is missing. No bytecode ahead of time: most of it is
    # never used; what is used is compiled by doctor, below.
    set -- --no-compile --only-binary :all: -c "$work/constraints.txt" -r "$work/requirements.txt"
    if [ -n "$offline" ]; then set -- --no-index --find-links "$wheelhouse" "$@"; fi
    pip install -q "$@" || explain_pip "installing the packages"
    pip install -q --no-compile --no-deps --no-index "$own_wheel" || explain_pip "installing edge-mnv2"
    # Came with the environment, served to build, is never needed again.
    if [ "${py_minor#3.}" -lt 12 ] && [ -e "$site_packages/setuptools" ]; then
        run "$new/bin/python" -m pip uninstall -q -y setuptools || :
    fi
    {
        printf 'extras=%s\n' "$extras"
        printf 'version=%s\n' "$(wheel_version "$own_wheel")"
    } >"$new/edge-mnv2-install"
}

# The new version has to pass its own doctor before it replaces one that works.
check_and_switch() {
    old=$(active_venv)
    if [ -n "$dry_run" ]; then
        note "$new/bin/edge-mnv2 doctor"
        note "ln -s $new $current${old:+ (in place of $old, kept when doctor fails)}"
        note "ln -s $current/bin/edge-mnv2 $command"
        return
    fi
    doctor_code=0
    "$new/bin/edge-mnv2" doctor || doctor_code=$?
    if [ $doctor_code != 0 ] && [ -x "${old:-/nonexistent}/bin/edge-mnv2" ] &&
        "$old/bin/edge-mnv2" doctor >>"$log" 2>&1; then
        say ''
        die $doctor_code "the new version's doctor found faults: $(version_of "$old") stays in use, nothing was changed" \
            "mend what doctor named and run this again"
    fi
    mkdir -p "$bin"
    ln -s "venvs/$(basename "$new")" "$prefix/.current.$$"
    mv -fT "$prefix/.current.$$" "$current"
    ln -s "$current/bin/edge-mnv2" "$bin/.edge-mnv2.$$"
    mv -fT "$bin/.edge-mnv2.$$" "$command"
    new=''
    remove_unused
}

version_of() { sed -n 's/^version=//p' "$1/edge-mnv2-install" 2>/dev/null; }

# Environments that are not in use: earlier versions and what a power cut left. One that a process still runs from
# stays until the next time.
remove_unused() {
    keep=$(active_venv)
    for folder in "$prefix"/venvs/*; do
        if [ ! -d "$folder" ] || [ "$(readlink -f "$folder")" = "$keep" ]; then continue; fi
        user=$(grep -lsF "$folder/" /proc/[0-9]*/maps 2>/dev/null | head -n 1 | cut -d/ -f3)
        if [ -n "$user" ]; then
            say "The earlier version still runs (process $user): start that one again to have the new version."
        else
            rm -rf "$folder"
        fi
    done
    rm -rf "$prefix"/.current.*
    for folder in "$prefix"/.work.*; do [ "$folder" = "$work" ] || rm -rf "$folder"; done
}

finish() {
    [ -z "$dry_run" ] || return 0
    say ''
    if [ $doctor_code != 0 ]; then
        say "Installed, but doctor found faults: mend what it names, then: $command doctor"
    else
        size=$(du -sm "$prefix" | cut -f1)
        say "Installed edge-mnv2 $(version_of "$(active_venv)")${extras:+ with $extras} in $(($(date +%s) - started)) s, $size MB."
    fi
    shown=edge-mnv2
    case :$PATH: in
    *:"$bin":*) ;;
    *)
        shown=$command
        say "$bin is not on PATH: log in again, or: export PATH=\"$bin:\$PATH\""
        ;;
    esac
    if [ "$kind" = pi ] && [ -z "$sys_picamera2" ]; then
        say "For a camera on the ribbon cable: sudo apt install python3-picamera2, then run this again."
    fi
    if [ -z "$service" ] && grep -qsF "$command" "$unit"; then
        say "The service runs the earlier version until: sudo systemctl restart edge-mnv2"
    elif [ -z "$service" ] && grep -qsF "$command" "$own_unit"; then
        say "The service runs the earlier version until: systemctl --user restart edge-mnv2"
    fi
    if [ $doctor_code = 0 ]; then say "Try: $shown run --source test"; fi
}

# A folder of wheels says what it is for.
check_wheelhouse() {
    [ -n "$wheelhouse" ] || return 0
    [ -d "$wheelhouse" ] || die 2 "--wheelhouse $wheelhouse: no such folder"
    if [ -f "$wheelhouse/targets" ] && ! grep -qx "$machine $py_minor" "$wheelhouse/targets"; then
        die 2 "$wheelhouse is for $(paste -sd, "$wheelhouse/targets" | sed 's/,/, /g'); this is $machine $py_minor" \
            "fill one on a PC: ./install.sh --make-wheelhouse DIR --arch $machine --python $py_minor"
    fi
}

install_all() {
    started=$(date +%s)
    python_given=$python
    if [ -z "$wheelhouse" ] && [ -f "$here/targets" ] && [ ! -f "$here/pyproject.toml" ]; then wheelhouse=$here; fi
    look_at_machine
    choose_python
    refuse_unsupported
    choose_packages
    refuse_unprepared
    check_wheelhouse
    old=$(active_venv)
    if [ -z "$extras_given" ] && [ -n "$old" ] && [ -f "$old/edge-mnv2-install" ]; then
        extras=$(sed -n 's/^extras=//p' "$old/edge-mnv2-install")
    fi

    say "edge-mnv2 on ${board:+$board, }$os_name ($machine, Python $py_full)"
    note "environment  $prefix"
    note "command      $command"
    if [ -n "$see_system" ]; then
        seen="${sys_cv2:+, OpenCV $sys_cv2}${sys_picamera2:+, picamera2}${sys_numpy:+, numpy $sys_numpy}"
        seen=${seen#, }
        note "of the system ${seen:-nothing yet}"
    fi
    if [ -n "$wheelhouse" ]; then note "packages     $wheelhouse, no network"; fi
    if [ -n "$extras" ]; then note "extras       $extras"; fi
    if [ -n "$old" ] && [ -n "$(version_of "$old")" ]; then note "in use       $(version_of "$old")"; fi
    if [ -n "$dry_run" ]; then say 'It would do this; nothing is changed now:'; fi

    begin
    if [ -z "$dry_run" ]; then say '[1/3] virtual environment'; fi
    make_environment
    site_packages=$new/lib/python$py_minor/site-packages
    if [ -z "$dry_run" ]; then say "[2/3] packages: ${wheelhouse:-about 120 MB to fetch}; minutes on a small board"; fi
    install_packages
    if [ -z "$dry_run" ]; then say '[3/3] edge-mnv2 doctor'; fi
    check_and_switch
    finish
}

# ---------------------------------------------------------------------------------------------------- wheelhouse

# A system of this Python has at least this C library: Bullseye, Ubuntu 22.04, Bookworm, Ubuntu 24.04, Trixie.
usual_glibc() {
    case $1 in
    3.9) say 2.31 ;;
    3.10) say 2.35 ;;
    3.11) say 2.36 ;;
    3.12) say 2.39 ;;
    *) say 2.41 ;;
    esac
}

fill_wheelhouse() {
    target=$python
    case $arch in
    aarch64 | x86_64) py_range='3.9 to 3.14' ;;
    armv7l) py_range='3.9 to 3.11' ;;
    arm64) die 2 "--arch arm64" "it is called aarch64 here" ;;
    '') die 2 "--make-wheelhouse needs --arch" "aarch64 (64-bit Pi, Jetson), armv7l (32-bit Pi OS) or x86_64" ;;
    *) die 2 "--arch $arch" "aarch64, armv7l or x86_64" ;;
    esac
    case $arch-$target in
    *-) die 2 "--make-wheelhouse needs --python" "the board's: 3.11 on Bookworm, 3.13 on Trixie, 3.10 on JetPack 6" ;;
    armv7l-3.9 | armv7l-3.1[01]) ;;
    aarch64-3.9 | aarch64-3.1[0-4] | x86_64-3.9 | x86_64-3.1[0-4]) ;;
    *) die 2 "--python $target" "for $arch: $py_range" ;;
    esac
    : "${glibc:=$(usual_glibc "$target")}"
    case $glibc in
    2.[1-9][0-9]) ;;
    *) die 2 "--glibc $glibc" "a version such as 2.31 (ldd --version on the board says it)" ;;
    esac
    python=''
    look_at_machine
    choose_python
    if [ -n "$py_venv" ]; then :; else
        die 1 "$python cannot make virtual environments" "sudo apt install python3-venv, then run this again"
    fi
    [ -f "$here/pyproject.toml" ] || die 2 "$here does not hold the project" "run install.sh from a clone of it"

    platforms=''
    libc=${glibc#2.}
    while [ "$libc" -ge 17 ]; do
        platforms="$platforms --platform manylinux_2_${libc}_$arch"
        libc=$((libc - 1))
    done
    platforms="$platforms --platform manylinux2014_$arch --platform linux_$arch"
    left_out='' constraint='' from_apt=''
    case $arch in
    # No wheels of these on the main index: the board's apt has them.
    armv7l)
        left_out='numpy pillow pyyaml opencv-python-headless opencv-python'
        from_apt='python3-numpy python3-pil python3-yaml python3-opencv'
        ;;
    # The board may have apt's numpy, and modules built against it.
    aarch64) constraint=$(numpy_constraint "$target") ;;
    esac

    say "wheelhouse for $arch, Python $target, C library $glibc or newer${extras:+, with $extras}, in $make_wheelhouse"
    if [ -n "$dry_run" ]; then
        say 'It would do this; nothing is changed now:'
        note "build edge-mnv2 from $here"
        note "pip download its requirements for that machine${left_out:+, without $left_out}${constraint:+, with $constraint}"
        note "copy install.sh to $make_wheelhouse"
        return
    fi
    trap clean_up EXIT
    trap stopped HUP INT TERM
    mkdir -p "$make_wheelhouse" || die 2 "--make-wheelhouse $make_wheelhouse cannot be made"
    work=$(mktemp -d "$make_wheelhouse/.work.XXXXXX")
    log=$make_wheelhouse/make.log
    : >"$log"
    tool=$work/venv
    run "$python" -m venv "$tool" || die 1 "$python could not make a virtual environment" "see $log"
    new=$tool
    mkdir "$work/wheels"
    say '[1/2] building edge-mnv2'
    pip wheel -q --no-deps -w "$work" "$here" || explain_pip "building edge-mnv2"
    own_wheel=$(newest_own_wheel "$work")
    "$tool/bin/python" -c "$own_requirements_code" "$own_wheel" "$extras" "$arch" "$target.0" "$left_out" \
        >"$work/first.txt" 2>"$work/complaint" || die 2 "--extras $extras: $(tail -n 1 "$work/complaint")"
    say "$constraint" >"$work/constraints.txt"
    say '[2/2] fetching packages'
    # shellcheck disable=SC2086
    set -- -q --only-binary :all: --implementation cp --python-version "$target" --abi "cp$(printf '%s' "$target" | tr -d .)" \
        --abi abi3 --abi none $platforms -d "$work/wheels" -c "$work/constraints.txt"
    if [ -z "$left_out" ]; then
        pip download "$@" -r "$work/first.txt" || explain_pip "fetching packages"
    fi
    # pip evaluates the markers of requirements for the machine that it runs on, and what apt provides must not be
    # looked for: so the set is completed by hand.
    rounds=0
    while :; do
        "$tool/bin/python" -c "$closure_code" "$work/wheels" "$arch" "$target.0" "$left_out" "$work/first.txt" \
            >"$work/missing.txt" || die 1 "the requirements of the wheels could not be read"
        [ -s "$work/missing.txt" ] || break
        rounds=$((rounds + 1))
        [ $rounds -le 20 ] || die 1 "the wheelhouse does not become complete: $(paste -sd' ' "$work/missing.txt")"
        pip download "$@" --no-deps -r "$work/missing.txt" || explain_pip "fetching packages"
    done
    rm -f "$make_wheelhouse"/edge_mnv2-*.whl
    mv -f "$own_wheel" "$work"/wheels/*.whl "$make_wheelhouse/"
    printf '%s %s\n' "$arch" "$target" | cat - "$make_wheelhouse/targets" 2>/dev/null | sort -u >"$work/targets"
    mv -f "$work/targets" "$make_wheelhouse/targets"
    # Where this file already lies there, it is what it should be.
    [ "$here" = "$make_wheelhouse" ] || cp "$here/install.sh" "$make_wheelhouse/install.sh"
    rm -f "$log"
    log=''
    say "Done: $(find "$make_wheelhouse" -name '*.whl' | wc -l) wheels, $(du -sm "$make_wheelhouse" --exclude '.work.*' | cut -f1) MB."
    if [ -n "$from_apt" ]; then say "The board also needs, from apt: $from_apt"; fi
    say "On the board: sh $(basename "$make_wheelhouse")/install.sh"
}

# ---------------------------------------------------------------------------------------------------- Edge TPU

udev_rules() {
    cat <<'END'
# Coral Edge TPU: the USB stick before and after its firmware is loaded, and the PCIe card.
SUBSYSTEM=="usb", ATTRS{idVendor}=="1a6e", ATTRS{idProduct}=="089a", GROUP="plugdev", MODE="0660", TAG+="uaccess"
SUBSYSTEM=="usb", ATTRS{idVendor}=="18d1", ATTRS{idProduct}=="9302", GROUP="plugdev", MODE="0660", TAG+="uaccess"
SUBSYSTEM=="apex", GROUP="plugdev", MODE="0660", TAG+="uaccess"
END
}

# as_root COMMAND...: once per line that needs it, shown before it is done.
as_root() {
    note "${sudo:+$sudo }$(as_words "$@")"
    [ -z "$dry_run" ] || return 0
    ${sudo:+$sudo} "$@" >/dev/null
}

setup_edgetpu() {
    user=$(id -un)
    sudo=sudo
    if [ "$(id -u)" = 0 ]; then sudo=''; fi
    rules=$root/etc/udev/rules.d/65-edge-mnv2-coral.rules
    package=libedgetpu1-$edgetpu
    other=libedgetpu1-max
    if [ "$edgetpu" = max ]; then other=libedgetpu1-std; fi
    say ''
    say "Coral Edge TPU, $edgetpu clock:"
    if [ "$edgetpu" = std ]; then
        note "(--edgetpu=max is about twice the clock: faster, more power, and hot enough to burn and to need cooling)"
    else
        note "(the maximum clock: the stick gets hot enough to burn; keep it in moving air, or take --edgetpu=std)"
    fi
    todo=''
    if dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed'; then
        note "$package is installed"
    elif apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]'; then
        todo="$todo package"
    else
        note "$package is not in this machine's package sources: docs/edgetpu.md says where it comes from"
        lacks_library=1
    fi
    udev_rules | cmp -s - "$rules" || todo="$todo rules"
    # shellcheck disable=SC2086
    case " $(id -Gn "$user") " in
    *" plugdev "*) ;;
    *) if [ -n "$sudo" ]; then todo="$todo group"; fi ;;
    esac
    if [ -z "$todo" ]; then
        note "udev rules and group are in place: nothing to do"
        return
    fi
    if [ -n "$sudo" ] && [ -z "$dry_run" ]; then
        if ! command -v sudo >/dev/null 2>&1 || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
            dry_run=1
            warn "these need root, and sudo cannot ask for a password here; run them yourself:"
            edgetpu_failed=1
        else
            note "these need root:"
        fi
    fi
    case $todo in *package*)
        # The two clocks are two packages that exclude each other.
        if dpkg-query -W -f '${Status}' "$other" 2>/dev/null | grep -q 'install ok installed'; then
            note "($other is installed and will be replaced)"
        fi
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y "$package" ||
            { warn "apt could not install $package" && edgetpu_failed=1; }
        ;;
    esac
    case $todo in *rules*)
        staged=${work:-/tmp}/65-edge-mnv2-coral.rules
        if [ -n "$dry_run" ]; then
            note "${sudo:+$sudo }tee $rules, with:"
            udev_rules | sed 's/^/    /'
        else
            udev_rules >"$staged"
            as_root mkdir -p "$(dirname "$rules")"
            as_root install -m 644 "$staged" "$rules" || die 1 "$rules could not be written"
        fi
        # In a container there is no udev to tell.
        if command -v udevadm >/dev/null 2>&1 && [ -z "$root" ]; then
            as_root udevadm control --reload-rules || :
            as_root udevadm trigger --subsystem-match=usb --subsystem-match=apex || :
        fi
        ;;
    esac
    case $todo in *group*)
        getent group plugdev >/dev/null 2>&1 || as_root groupadd --system plugdev
        as_root usermod -aG plugdev "$user" || edgetpu_failed=1
        note "log out and in again: a new group counts from the next login on"
        ;;
    esac
    if [ -z "$dry_run" ] && [ -z "$edgetpu_failed" ]; then
        note "plug the stick out and in, then: edge-mnv2 doctor"
    fi
}

# ---------------------------------------------------------------------------------------------------- uninstalling

remove_all() {
    if [ ! -d "$prefix/venvs" ] && [ ! -L "$current" ] && [ ! -L "$command" ]; then
        say "edge-mnv2 is not installed in $prefix: nothing to remove"
        return
    fi
    if grep -qsF -e "$command" -e "$prefix/" "$unit"; then
        die 1 "the service edge-mnv2 starts this installation at boot" "first: sudo $command service remove"
    elif grep -qsF -e "$command" -e "$prefix/" "$own_unit"; then
        die 1 "the service edge-mnv2 starts this installation" "first: $command service remove"
    fi
    if [ -n "$dry_run" ]; then say 'It would do this; nothing is changed now:'; fi
    if is_our_link; then run rm -f "$command"; fi
    run rm -rf "$prefix/venvs" "$current" "$prefix/install.log" "$prefix/.lock"
    for folder in "$prefix"/.work.*; do
        if [ -d "$folder" ]; then run rm -rf "$folder"; fi
    done
    # What else lies there is not ours.
    if [ -z "$dry_run" ]; then rmdir "$prefix" 2>/dev/null || :; fi
    if [ -n "$dry_run" ]; then return; fi
    say "Removed edge-mnv2 from $prefix."
    kept=''
    for folder in "${EDGE_MNV2_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/edge-mnv2}" \
        "${EDGE_MNV2_CONFIG_DIR:-${XDG_CONFIG_HOME:-${HOME:-}/.config}/edge-mnv2}" \
        "${EDGE_MNV2_STATE_DIR:-${XDG_STATE_HOME:-${HOME:-}/.local/state}/edge-mnv2}"; do
        if [ -d "$folder" ]; then kept="$kept $folder"; fi
    done
    if [ -n "$kept" ]; then say "Your models and profiles stay; to remove them too: rm -r$kept"; fi
    if [ -e "$root/etc/udev/rules.d/65-edge-mnv2-coral.rules" ]; then
        say "The Coral's udev rules stay: sudo rm $root/etc/udev/rules.d/65-edge-mnv2-coral.rules"
    fi
}

# ---------------------------------------------------------------------------------------------------- the whole

new='' doctor_code=0 edgetpu_failed='' lacks_library='' site_packages=''

if [ -n "$make_wheelhouse" ]; then
    fill_wheelhouse
    exit 0
fi
[ -z "$arch$glibc" ] || die 2 "--arch and --glibc belong to --make-wheelhouse"
if [ -n "$uninstall" ]; then
    remove_all
    exit 0
fi
install_all
if [ -n "$edgetpu" ]; then setup_edgetpu; fi
if [ -n "$service" ]; then
    if [ -n "$dry_run" ] && [ ! -x "$command" ]; then
        note "$(as_words "$command" service install "$@")"
    elif [ -n "$dry_run" ]; then
        "$command" service install --dry-run "$@"
    else
        say ''
        "$command" service install "$@"
    fi
fi
[ -z "$edgetpu_failed$lacks_library" ] || [ $doctor_code != 0 ] || exit 1
exit $doctor_code
