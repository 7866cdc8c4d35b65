"""`python -m bundlefs` is `bundlefs`."""

import sys

from bundlefs.cli import main

sys.exit(main())
