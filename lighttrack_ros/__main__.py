"""`python -m lighttrack_ros` is the `lighttrack` command line."""

import sys

from lighttrack_ros.commands import main

sys.exit(main())
