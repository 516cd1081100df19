#!/usr/bin/env bash
# The browser test: bash tests/browser/run.sh [PYTHON]. Installs nothing; says what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
for x in chromium chromedriver; do
  command -v "$x" >/dev/null || { echo "$x is missing: apt-get install chromium chromium-driver"; exit 1; }
done
"$python" -c 'import selenium, jupyterlab, ipycanvas' || { echo "install the dev extras: pip install -e '.[dev]'"; exit 1; }
exec "$python" -m pytest tests/browser/check_inspect.py -q -s -p no:cacheprovider --durations=5
