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
# What is done in Python once there is one.
parts=$here/install
need_mb=600
# What the newest LiteRT that this release knows is built for; pip would search long and then fail obscurely.
newest_python=14

usage() {
    cat <<'END'
usage: ./install.sh [options]            install, or upgrade what is installed
       ./install.sh --uninstall
       ./install.sh --make-kit DIR --arch aarch64 --python 3.11

  --prefix DIR         where the environment goes (default ~/.local/share/edge-mnv2)
  --bin DIR            where the command is linked (default ~/.local/bin)
  --python PROGRAM     the Python to build on (default: the system's)
  --extras LIST        optional parts, such as window,record; an upgrade keeps them; "none" drops them
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

For a board without a network, on a PC with one; then take DIR to the board and run `sh DIR/install.sh` there:
  --make-kit DIR       packages, models, the demo clip, docs and this installer, with checksums
  --make-wheelhouse DIR
                       the packages and this installer alone
  --arch NAME          aarch64 (64-bit Pi, Jetson), armv7l (32-bit Pi OS) or x86_64
  --python X.Y         the board's Python: 3.11 for Bookworm, 3.13 for Trixie, 3.10 for JetPack 6
  --extras LIST        what is installed from it, beside what always is
  --models LIST        what a kit holds beside the default model (default: demo; "none")
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

prefix='' bin='' python='' extras='' extras_given='' system_packages=auto wheelhouse='' make_kit='' complete='' arch=''
models='' glibc='' edgetpu='' service='' dry_run='' uninstall='' verbose='' log='' work=''
progress=''

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
    --prefix | --bin | --python | --extras | --system-packages | --wheelhouse | --make-kit | --make-wheelhouse | --arch | \
        --models | --glibc)
        [ $# -gt 0 ] || die 2 "$option needs a value" "see ./install.sh --help"
        value=$1
        shift
        ;;
    esac
    case $option in
    --prefix | --bin | --python | --wheelhouse | --make-kit | --make-wheelhouse | --arch | --models | --glibc)
        [ -n "$value" ] || die 2 "$option needs a value" "see ./install.sh --help"
        ;;
    esac
    case $option in
    --prefix) prefix=$(absolute "$value") ;;
    --bin) bin=$(absolute "$value") ;;
    --python) python=$value ;;
    --extras)
        extras_given=1
        extras=$(printf '%s' "$value" | tr -d ' ' | tr -s , | sed 's/^,//; s/,$//')
        case $extras in
        none) extras='' ;;
        *[!A-Za-z0-9,_-]*) die 2 "--extras $value" "a list such as window,record" ;;
        esac
        ;;
    --system-packages)
        case $value in
        auto | yes | no) system_packages=$value ;;
        *) die 2 "--system-packages $value" "auto, yes or no" ;;
        esac
        ;;
    --wheelhouse) wheelhouse=$(absolute "$value") ;;
    --make-kit) make_kit=$(absolute "$value") complete=1 ;;
    --make-wheelhouse) make_kit=$(absolute "$value") ;;
    --models) models=$(printf '%s' "$value" | tr -d ' ') ;;
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

[ -n "${HOME:-}" ] || [ -n "$prefix$make_kit" ] || die 2 "HOME is not set" "set it, or give --prefix and --bin"
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
    # Another one is refused later, by name.
    case $1 in 3.[0-9]*) ;; *) return 0 ;; esac
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
    end_progress
    [ -z "$verbose" ] || die 1 "$1 failed"
    code=0
    "$new/bin/python" "$parts/packages.py" explain "$log" "$1" "$wheelhouse" "$machine" "$py_minor" || code=$?
    exit "$code"
}

pip() { run "$new/bin/python" -m pip "$@"; }

# While pip is silent for minutes, a person on a terminal sees that something comes.
show_progress() {
    [ -t 1 ] && [ -z "$verbose$dry_run" ] || return 0
    (
        seconds=0
        while sleep 2 && kill -0 $$ 2>/dev/null; do
            seconds=$((seconds + 2))
            here_mb=$(du -smc "$work" "$new" 2>/dev/null | tail -n 1 | cut -f 1)
            printf '\r      %s MB here after %s s ' "${here_mb:-0}" "$seconds"
        done
    ) &
    progress=$!
}

end_progress() {
    [ -n "$progress" ] || return 0
    kill "$progress" 2>/dev/null || :
    wait "$progress" 2>/dev/null || :
    progress=''
    printf '\r%40s\r' ''
}

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

# Where our own wheel comes from: the wheelhouse, else the folder that this file lies in. Nothing is made yet.
check_source() {
    own_wheel=''
    if [ -n "$wheelhouse" ]; then
        own_wheel=$(newest_own_wheel "$wheelhouse")
        [ -n "$own_wheel" ] || die 2 "--wheelhouse $wheelhouse: there is no edge_mnv2-*.whl in it" \
            "fill it on a PC: ./install.sh --make-wheelhouse DIR --arch $machine --python $py_minor"
    elif [ ! -f "$here/pyproject.toml" ]; then
        die 2 "$here holds neither the project nor a wheelhouse" \
            "run install.sh from a clone of the project, or give --wheelhouse DIR"
    fi
    "$python" -s "$parts/packages.py" extras "${own_wheel:-$here/pyproject.toml}" "$extras" || exit 2
}

build_own_wheel() {
    pip wheel -q --no-deps -w "$work" "$here" || explain_pip "building edge-mnv2"
    if [ -n "$dry_run" ]; then own_wheel='the wheel just built'; else own_wheel=$(newest_own_wheel "$work"); fi
}

newest_own_wheel() { find "$1" -maxdepth 1 -name 'edge_mnv2-*.whl' | sort -V | tail -n 1; }

wheel_version() { basename "$1" | cut -d- -f2; }

install_packages() {
    [ -n "$own_wheel" ] || build_own_wheel
    offline=''
    if [ -n "$wheelhouse" ]; then offline=1; fi
    constraint=''
    if [ -n "$see_system" ]; then constraint=$(numpy_constraint "$py_minor" "$sys_numpy"); fi
    if [ -n "$dry_run" ]; then
        note "pip install, into $new: what edge-mnv2${extras:+[$extras]} asks for${left_out:+, without $left_out}${constraint:+, with $constraint}${offline:+, from $wheelhouse alone}"
        note "pip install --no-deps: $own_wheel"
        return
    fi
    "$new/bin/python" "$parts/packages.py" requirements "$own_wheel" "$extras" "$machine" "$py_full" "$left_out" \
        >"$work/requirements.txt" || exit 2
    say "$constraint" >"$work/constraints.txt"
    # Wheels only: a board would compile for hours where a wheel is missing. No bytecode ahead of time: most of it is
    # never used; what is used is compiled by doctor, below.
    set -- --no-compile --only-binary :all: -c "$work/constraints.txt" -r "$work/requirements.txt"
    if [ -n "$offline" ]; then set -- --no-index --find-links "$wheelhouse" "$@"; fi
    show_progress
    pip install -q "$@" || explain_pip "installing the packages"
    pip install -q --no-compile --no-deps --no-index "$own_wheel" || explain_pip "installing edge-mnv2"
    end_progress
    # Came with the environment, served to build, is never needed again.
    if [ "${py_minor#3.}" -lt 12 ] && [ -e "$site_packages/setuptools" ]; then
        run "$new/bin/python" -m pip uninstall -q -y setuptools || :
    fi
    # pip has done its work, and came compiled: 9 MB.
    find "$site_packages/pip" -depth -name __pycache__ -exec rm -rf {} + 2>/dev/null || :
    {
        printf 'extras=%s\n' "$extras"
        printf 'version=%s\n' "$(wheel_version "$own_wheel")"
        printf 'from=%s\n' "$here/install.sh"
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
        size=$(du -sm "$prefix/venvs" | cut -f1)
        say "Installed edge-mnv2 $(version_of "$(active_venv)")${extras:+ with $extras} in $(($(date +%s) - started)) s, $size MB."
    fi
    shown=edge-mnv2
    case :$PATH: in
    *:"$bin":*) ;;
    *)
        shown=$command
        say "$bin is not on PATH: log in again, or:"
        say "  export PATH=\"$bin:\$PATH\""
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
    if [ $doctor_code = 0 ]; then say "Try: $shown run --source demo"; fi
}

# A kit says what it is for, what it holds, and whether it came over whole.
check_wheelhouse() {
    [ -n "$wheelhouse" ] || return 0
    [ -d "$wheelhouse" ] || die 2 "--wheelhouse $wheelhouse: no such folder"
    if [ -f "$wheelhouse/targets" ] && ! grep -qx "$machine $py_minor" "$wheelhouse/targets"; then
        die 2 "$wheelhouse is for $(paste -sd, "$wheelhouse/targets" | sed 's/,/, /g'); this is $machine $py_minor" \
            "fill one on a PC: ./install.sh --make-wheelhouse DIR --arch $machine --python $py_minor"
    fi
    if [ -f "$wheelhouse/SHA256SUMS" ] && command -v sha256sum >/dev/null 2>&1; then
        damaged=$(cd "$wheelhouse" && sha256sum -c --quiet SHA256SUMS 2>/dev/null | sed 's/: [^:]*$//' | paste -sd' ') || :
        [ -z "$damaged" ] || die 1 "$wheelhouse: damaged or missing: $damaged" "copy the kit again"
    fi
    contents=$(grep -s "^$machine $py_minor extras=" "$wheelhouse/contents") || return 0
    kit_models=${contents##* models=}
    kit_extras=${contents##* extras=} && kit_extras=${kit_extras%% *}
    if [ -z "$extras_given" ]; then extras=$kit_extras extras_given=1; fi
}

# The models of a kit go where `edge-mnv2 pull` puts those that it fetches.
take_models() {
    if [ -z "$kit_models" ] || [ "$kit_models" = none ]; then return; fi
    names=$(printf '%s' "$kit_models" | tr , ' ')
    if [ -n "$dry_run" ]; then
        note "edge-mnv2 pull $names, from $wheelhouse/models"
        return
    fi
    # shellcheck disable=SC2086
    EDGE_MNV2_MIRROR=$wheelhouse/models "$command" pull $names >>"$log" 2>&1 ||
        warn "these models of the kit could not be taken: $names (see $log)"
}

install_all() {
    started=$(date +%s)
    python_given=$python kit_models=''
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
    check_source

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
    if [ -n "$kit_models" ]; then note "models       $kit_models"; fi
    if [ -n "$old" ] && [ -n "$(version_of "$old")" ]; then note "in use       $(version_of "$old")"; fi
    if [ -n "$dry_run" ]; then say 'It would do this; nothing is changed now:'; fi

    begin
    if [ -z "$dry_run" ]; then say '[1/3] virtual environment'; fi
    make_environment
    site_packages=$new/lib/python$py_minor/site-packages
    if [ -z "$dry_run" ]; then say "[2/3] packages: ${wheelhouse:-up to 125 MB to fetch}; minutes on a small board"; fi
    install_packages
    if [ -z "$dry_run" ]; then say '[3/3] edge-mnv2 doctor'; fi
    check_and_switch
    take_models
    finish
}

# ---------------------------------------------------------------------------------------------------- kits

make_kit() {
    target=$python python=''
    look_at_machine
    choose_python
    [ -n "$py_venv" ] ||
        die 1 "$python cannot make virtual environments" "sudo apt install python3-venv, then run this again"
    set -- --into "$make_kit" --builder "$python" --arch "$arch" --python "$target" --glibc "$glibc" --extras "$extras" \
        --models "${models:-demo}" --numpy "$(numpy_constraint "$target")"
    "$python" -s "$parts/kit.py" "$@" ${complete:+--complete} ${dry_run:+--dry-run} ${verbose:+--verbose}
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

new='' doctor_code=0 edgetpu_code=0 site_packages=''

[ -f "$parts/packages.py" ] || [ -n "$uninstall" ] ||
    die 2 "$parts is missing" "install.sh needs the folder install beside it: copy both"
if [ -n "$make_kit" ]; then
    make_kit
    exit 0
fi
[ -z "$arch$glibc$models" ] || die 2 "--arch, --models and --glibc belong to --make-kit or --make-wheelhouse"
if [ -n "$uninstall" ]; then
    remove_all
    exit 0
fi
install_all
if [ -n "$edgetpu" ]; then
    "$python" -s "$parts/edgetpu.py" --clock "$edgetpu" --root "${root:-/}" ${dry_run:+--dry-run} || edgetpu_code=$?
fi
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
[ $doctor_code != 0 ] || exit $edgetpu_code
exit $doctor_code
