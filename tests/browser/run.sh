#!/usr/bin/env bash
# The browser tests of the widgets and of the page: bash tests/browser/run.sh [PYTHON]. Installs Debian's Chromium and its driver where they are missing and it may.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}

have() { command -v "$1" >/dev/null; }
ready() { { have chromium || have chromium-browser || have google-chrome; } && have chromedriver; }
install() {
  have apt-get || return 1
  local root=(); [ "$(id -u)" = 0 ] || root=(sudo -n)
  [ ${#root[@]} = 0 ] || have sudo || return 1
  echo "== installing chromium and chromium-driver for the browser test"
  export DEBIAN_FRONTEND=noninteractive
  "${root[@]}" apt-get -qq -o Acquire::Retries=3 update && "${root[@]}" apt-get -qq -y --no-install-recommends install chromium chromium-driver fonts-dejavu-core >/dev/null
}

ready || install || true
ready || { echo "the browser test needs Chromium and its driver, and could not install them. On Debian, as root: apt-get install chromium chromium-driver" >&2; exit 1; }
"$python" -c 'import selenium, jupyterlab, notebook, ipycanvas' || { echo "install the dev extras: pip install -e '.[dev]'" >&2; exit 1; }
exec "$python" -m pytest tests/browser/check_*.py -q -s -p no:cacheprovider --durations=5
