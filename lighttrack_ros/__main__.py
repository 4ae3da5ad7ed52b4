"""`python -m lighttrack_ros` is the `lighttrack` command line."""

import sys

try:
    from lighttrack_ros.commands import main
except KeyboardInterrupt:
    sys.exit(130)

sys.exit(main())
