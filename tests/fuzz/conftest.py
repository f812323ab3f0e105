"""The fuzzing targets are a package at the top of the repository, which goes on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
