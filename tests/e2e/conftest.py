"""Makes `corpus` (tests/captures/corpus.py) importable here, and gives the run's RabbitMQ."""

import sys
from pathlib import Path

from vedette.testing import pytest_rabbit

sys.path.insert(0, str(Path(__file__).parents[1] / "captures"))

rabbit = pytest_rabbit.rabbit
