"""Makes the example run importable for the report tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for run_example, which is no test
