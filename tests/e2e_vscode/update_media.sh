#!/usr/bin/env bash
# Puts the pictures of the last end-to-end run into the extension, whose README and walkthrough show them.
set -euo pipefail
cd "$(dirname "$0")/../.."
from=artifacts/e2e-vscode
cp "$from/tour/forelook.gif" extension/media/forelook.gif
cp "$from/suggestions/10 tooltip.png" extension/media/tooltip.png
cp "$from/suggestions/11 statistics.png" extension/media/statistics.png
