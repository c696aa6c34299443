"""Entry point of ``python -m regreason_plugin``, which ``accelerate launch -m`` needs."""

import sys

from regreason_plugin.cli import main

sys.exit(main())
