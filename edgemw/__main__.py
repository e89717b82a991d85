"""`python -m edgemw`."""

import sys

from edgemw.cli.main import main

sys.exit(main())
