#!/usr/bin/env bash
# Gets what building, testing and demonstrating Headrace needs. Run it as often as you like: when
# everything is there it says so in a blink and touches neither the system nor the network.
#
#   tools/setup.sh          compiler, libraries, test tools, ONNX Runtime, one small model
#   tools/setup.sh --dev    also clang, its fuzzer and sanitizers, linters, debuggers
#   tools/setup.sh --quiet  says nothing when there is nothing to do
#
# Debian 12, Debian 13 and Ubuntu 24.04, amd64 and arm64; as root, or as a user who may sudo. System
# packages come from the system's own apt. What the system lacks goes to .deps/ beside the sources
# and nowhere else: removing that folder undoes it.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

# --- What is pinned ------------------------------------------------------------------------------
# From Debian 13, for systems that lack them: package, version, SHA-256 on amd64 and on arm64.
DEBIAN_PINS='
libyyjson0 0.10.0+ds-1+b1
  37980c1c76344e0af7ffeac2a3ed65db2e1a7e5de3a050225498e77935cf367e
  f42688c9a65f615ae52db9e21ab4e37fd9a6fc8c16539f1272eb5c2093d085e6
libyyjson-dev 0.10.0+ds-1+b1
  295f23a9c3d6bd08c0afea051a04aa0bba22c2fa248e39e6e7e0406ef0c068f5
  d8ecc58ca1ff13926181d6c2d8fc298a11151f8e803b9bc51b040a36849b6d40
libllhttp-dev 9.2.1~7.3.0+dfsg1+~cs24.12.11-1
  c018069b22f5d53ac630bdc360d6c8bc7df78626cfb22276cbfb280aa64ac4b6
  7415055a32bf90e71b63782876792a7ac10c0163b14625d2e735ed151d970361
libonnxruntime-dev 1.21.0+dfsg-1
  14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08
  d4b1967893865756c0fa8536be165259a8eb0e9068e60d322ba707ef4527e44e'
# From PyPI: ONNX Runtime's official CPU build, and the Silero voice activity detector, a real model
# of 2.3 MB that the tests and the demo run. A file there never changes under its name.
ORT_VERSION=1.30.0
ORT_SHA256_amd64=fa688e7891a6aa206636fe7372e27ee75fd17713289f6b4fc7b190e0a7de9328
ORT_SHA256_arm64=6c32a000d5139a38ba9349030b0032e3331acb559d596b22738d9d2b343a2b83
SILERO_VERSION=6.2.3
SILERO_SHA256=7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8

# Compiler and tools; libraries; tests.
PACKAGES='build-essential cmake ninja-build pkg-config git curl ca-certificates python3
    libuv1-dev libssl-dev libcurl4-openssl-dev libcyaml-dev libyaml-dev libpng-dev libsqlite3-dev
    libxxhash-dev libcmocka-dev python3-pytest'

# --- Helpers -------------------------------------------------------------------------------------
dev='' quiet=''
for arg in "$@"; do
    case $arg in
    --dev) dev=1 ;;
    --quiet) quiet=1 ;;
    *) sed -n '2,/^set -/s/^# \{0,1\}//p' "$0"; [ "$arg" = --help ]; exit ;;
    esac
done

say()  { echo "set-up: $*"; }
fail() { echo "set-up: $*" >&2; exit 1; }

retry() { # networks and mirrors have bad moments
    local try
    for try in 1 2 3; do
        "$@" && return
        [ $try = 3 ] || { say "failed, trying again in $((try * 5)) s: $*"; sleep $((try * 5)); }
    done
    return 1
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# A part of .deps/ is there when its stamp holds its pin; the stamp is written last.
have()  { [ "$(cat ".deps/stamps/$1" 2>/dev/null)" = "$2" ]; }
stamp() { mkdir -p .deps/stamps; echo "$2" >".deps/stamps/$1"; }

check_digest() { # <file> <sha256>
    echo "$2  $1" | sha256sum --check --status ||
        fail "$(basename "$1") is not the file that was pinned: expected sha256 $2"
}

# --- Which system --------------------------------------------------------------------------------
ID=unknown VERSION_ID=''
[ ! -r /etc/os-release ] || . /etc/os-release
from_debian13=1 supported=1 clang=14
case $ID:$VERSION_ID in
debian:12)    ;;
ubuntu:24.04) clang=18 ;;
debian:13)    clang=19 from_debian13=''
              PACKAGES+=' libyyjson-dev libllhttp-dev libonnxruntime-dev' ;;
*)            supported='' ;;
esac
case $(uname -m) in
x86_64)  arch=amd64 ;;
aarch64) arch=arm64 ;;
*)       supported='' arch=$(uname -m) ;;
esac

# Elsewhere we install no packages; it's enough that everything can be found.
unsupported() {
    local missing='' tool module modules='yyjson libllhttp libonnxruntime'
    ! have debian13 "$DEBIAN_PINS" || modules=''
    for tool in cc cmake ninja pkg-config git curl python3; do
        command -v $tool >/dev/null || missing+=" $tool"
    done
    for module in libuv libcrypto libcurl libcyaml yaml-0.1 libpng sqlite3 libxxhash cmocka \
                  $modules; do
        pkg-config --exists $module 2>/dev/null || missing+=" $module"
    done
    python3 -m pytest --version >/dev/null 2>&1 || missing+=" pytest"
    [ -z "$missing" ] && return
    echo "set-up: ${PRETTY_NAME:-this system} ($arch) is not one of those this script can set up:
  Debian 12, Debian 13, Ubuntu 24.04 on amd64 or arm64.
Not found here (programs by name, libraries by their pkg-config module):
 $missing
Install them, with development headers, and run this again. Needed are a C17 compiler (gcc 12 or
clang 14), cmake 3.22, libuv 1.44, OpenSSL 3, libcurl 7.88, libcyaml 1.3, SQLite 3.37, llhttp 9,
yyjson 0.10, and ONNX Runtime's C header, API 21 or later." >&2
    exit 1
}

# --- System packages -----------------------------------------------------------------------------
apt_packages() {
    local missing='' package
    # pip only fetches files for .deps/; nothing is installed with it.
    if ! have onnxruntime "$ORT_PIN" || ! have silero-vad "$SILERO_PIN"; then
        find_pip || PACKAGES+=' python3-pip'
    fi
    [ -z "$from_debian13" ] || have debian13 "$DEBIAN_PINS" || PACKAGES+=' debian-archive-keyring'
    [ -z "$dev" ] || PACKAGES+=" clang clang-format clang-tidy libclang-rt-$clang-dev cppcheck
        gcovr gdb valgrind"
    local installed
    installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' 2>/dev/null) "
    for package in $PACKAGES; do
        case $installed in
        *" installed:$package "*) ;;
        *) missing+=" $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0

    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
        fail "root is needed, or sudo, for: apt-get install --no-install-recommends$missing"
    say "installing with apt, to build and test:$missing"
    local apt='env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300'
    # A stale list of somebody else's repository is no reason to stop; the install will tell.
    retry as_root $apt update || say "apt-get update failed; going on with the lists there are"
    mkdir -p .deps
    retry as_root $apt install --no-install-recommends -o Dpkg::Use-Pty=0 -y $missing \
        >.deps/apt.log 2>&1 && return
    tail -20 .deps/apt.log >&2
    fail "apt could not install:$missing"
}

# --- Debian 13's packages, into .deps/ -----------------------------------------------------------
# A second apt with its own list, state and cache. apt checks the archive's signature, we check the
# digests. When a point release has moved a version, the signature alone has to do.
debian13() {
    [ -n "$from_debian13" ] || return 0
    ! have debian13 "$DEBIAN_PINS" || return 0
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    local top=$PWD/.deps/apt mirror package version digest_amd64 digest_arm64 digest file got

    # The mirror that this system uses already, if it is a Debian; there may be no other way out.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
        'Origin: Debian' 'Label: Debian' 2>/dev/null | head -1)
    : "${mirror:=http://deb.debian.org/debian}"

    say "fetching from Debian 13 into .deps/ what this release lacks ($mirror)"
    rm -rf "$top" .deps/stamps/debian13
    mkdir -p "$top"/{lists/partial,cache/archives/partial,debs,unpacked}
    echo "deb [target=Packages signed-by=$keyring] $mirror trixie main" >"$top/sources.list"
    # Downloads as ourselves: apt's own user cannot write to a folder of ours.
    cat >"$top/apt.conf" <<CONF
Dir::Etc::sourcelist "$top/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "$top";
Dir::State::lists "$top/lists";
Dir::State::status "/dev/null";
Dir::Cache "$top/cache";
APT::Sandbox::User "root";
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
    retry apt-get -qq -c "$top/apt.conf" update || fail "Debian 13's package list can't be read"

    while read -r package version digest_amd64 digest_arm64; do
        (cd "$top/debs" && retry apt-get -qq -c "$top/apt.conf" download "$package") ||
            fail "$package can't be fetched"
        file=$(echo "$top/debs/${package}"_*.deb)
        got=$(dpkg-deb -f "$file" Version)
        if [ "$got" = "$version" ]; then
            digest=digest_$arch
            check_digest "$file" "${!digest}"
            say "  $package $got, digest checked"
        else
            say "  $package $got: the pinned $version is gone; taken on Debian's signature alone"
        fi
        dpkg-deb -x "$file" "$top/unpacked"
    done < <(xargs -n 4 <<<"$DEBIAN_PINS")

    rm -rf .deps/include .deps/lib .deps/licenses
    mkdir -p .deps/include .deps/lib .deps/licenses
    cp -r "$top"/unpacked/usr/include/. .deps/include/
    cp -P "$top"/unpacked/usr/lib/*/{libllhttp.a,libyyjson.so*} .deps/lib/
    for package in libllhttp-dev libyyjson0 libonnxruntime-dev; do
        cp -L "$top/unpacked/usr/share/doc/$package/copyright" ".deps/licenses/$package"
    done
    rm -rf "$top"
    stamp debian13 "$DEBIAN_PINS"
}

# --- PyPI's files, into .deps/ -------------------------------------------------------------------
find_pip() {
    local python
    for python in /usr/bin/python3 python3; do
        if $python -m pip --version >/dev/null 2>&1; then pip="$python -m pip"; return; fi
    done
    return 1
}

# wheel <requirement> <sha256> [pip options]: unpacks a wheel to .deps/wheel; runs nothing of it.
wheel() {
    local requirement=$1 digest=$2
    shift 2
    find_pip || fail "pip is needed to fetch $requirement (python3-pip)"
    rm -rf .deps/wheel
    mkdir -p .deps/wheel
    retry $pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: "$@" \
        --dest .deps/wheel "$requirement" || fail "$requirement can't be fetched"
    check_digest .deps/wheel/*.whl "$digest"
    python3 -m zipfile -e .deps/wheel/*.whl .deps/wheel/
    say "  $requirement, digest checked"
}

ort_digest=ORT_SHA256_$arch
ORT_PIN="$ORT_VERSION ${!ort_digest:-}"
SILERO_PIN="$SILERO_VERSION $SILERO_SHA256"

onnxruntime() {
    ! have onnxruntime "$ORT_PIN" || return 0
    say "fetching ONNX Runtime from PyPI into .deps/onnxruntime"
    # For any Python: the library inside is the same, whatever version the wheel is for.
    wheel "onnxruntime==$ORT_VERSION" "${!ort_digest}" --implementation cp --python-version 3.12 \
        --abi cp312 --platform "manylinux_2_28_$(uname -m)"
    local top=.deps/onnxruntime
    rm -rf $top
    mkdir -p $top/lib
    mv .deps/wheel/onnxruntime/capi/libonnxruntime.so.* $top/lib/
    mv .deps/wheel/onnxruntime/{LICENSE,ThirdPartyNotices.txt} $top/
    ln -s libonnxruntime.so.$ORT_VERSION $top/lib/libonnxruntime.so.1
    ln -s libonnxruntime.so.1 $top/lib/libonnxruntime.so
    rm -rf .deps/wheel
    stamp onnxruntime "$ORT_PIN"
}

silero_vad() {
    ! have silero-vad "$SILERO_PIN" || return 0
    say "fetching the Silero VAD model from PyPI into .deps/models/silero-vad"
    wheel "silero-vad==$SILERO_VERSION" "$SILERO_SHA256" --python-version 3.12
    local top=.deps/models/silero-vad
    rm -rf $top
    mkdir -p $top/1
    mv .deps/wheel/silero_vad/data/silero_vad.onnx $top/1/model.onnx
    mv .deps/wheel/silero_vad-*.dist-info/licenses/LICENSE $top/LICENSE
    rm -rf .deps/wheel
    stamp silero-vad "$SILERO_PIN"
}

# --- Go ------------------------------------------------------------------------------------------
mkdir -p .deps
if command -v flock >/dev/null; then # two builds at once must not set up over each other
    exec 9>.deps/.lock
    flock 9
fi
if [ -n "$supported" ]; then
    apt_packages
    debian13
else
    unsupported
fi
onnxruntime
silero_vad
[ -n "$quiet" ] || say "everything is there (${PRETTY_NAME:-$ID}, $arch)"
