#!/usr/bin/env bash
# Make .venv and install this library into it: `env.sh runtime` for cut-outs, `env.sh dev` with torch and the authors' tools.
# A stamp in .venv holds the settings.ini that was installed; nothing is done while it matches. A dev install serves both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kind=${1:?runtime or dev}
root=$PWD venv=.venv
want=$(echo "# $root"; cat settings.ini)
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

die() { echo "make: $*" >&2; exit 1; }
current() { [ -f "$venv/.installed-$1" ] && [ "$(cat "$venv/.installed-$1")" = "$want" ]; }
fits() { "$@" -c 'import sys; sys.exit(not (3,10) <= sys.version_info[:2] <= (3,13))' >/dev/null 2>&1; }
here() { [ "$(cat "$venv/.made-in" 2>/dev/null || echo "$root")" = "$root" ]; }

if here && fits "$venv/bin/python"; then
    if current dev || { [ "$kind" = runtime ] && current runtime; }; then exit 0; fi
fi

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.10, 3.11, 3.12 or 3.13"
        echo "$PYTHON"; return
    fi
    for p in python3 python3.12 python3.11 python3.13 python3.10 python; do
        if fits "$p"; then echo "$p"; return; fi
    done
    die "needs Python 3.10, 3.11, 3.12 or 3.13, and found none on the PATH ($(python3 --version 2>/dev/null || echo 'no python3')). Name one: make PYTHON=/path/to/python3.12 ..."
}

# a new environment where there is none, it was made elsewhere, its Python is gone or not the right one, or its making was cut short
if ! here || ! fits "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$("$python" --version) has no ensurepip, so it cannot make an environment. On Debian or Ubuntu: apt-get install python3-venv; or name another: make PYTHON=/path/to/python3.12 ..."
    echo "== making $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv" || die "could not make $venv; the lines above say why"
    echo "$root" > "$venv/.made-in"
fi

# what each kind installs, what it costs the first time, and what must import afterwards
case $kind in
    runtime) what=. size='400 MB' must='cv2, onnxruntime, dim_nb' ;;
    dev) what='.[dev]' size='8 GB, most of it torch' must='cv2, onnxruntime, torch, torchvision, dim_nb' ;;
    *) die "runtime or dev, not $kind" ;;
esac
echo "== installing dim_nb ($kind): about $size the first time"
rm -f "$venv"/.installed-*
"$venv/bin/python" -m pip install --no-compile --progress-bar off -e "$what" | awk '/^ *Downloading .*[0-9] [MG]B\)|^Installing/ { print substr($0, 1, 120); fflush() }' ||
    die "pip could not install; the lines above say why. It needs the network and about $size. The same command starts again where it stopped."

"$venv/bin/python" -c "import $must" || die "the installation is broken; the lines above say how. make distclean, then the same command again, starts afresh."
printf '%s\n' "$want" > "$venv/.installed.tmp"
mv "$venv/.installed.tmp" "$venv/.installed-$kind"
