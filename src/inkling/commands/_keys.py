"""Where API keys are kept when nobody says."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_KEYS = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "inkling" / "keys.sqlite"
