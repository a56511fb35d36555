"""`python -m soundsight`."""

import sys

from soundsight.cli import main

if __name__ == "__main__":
    sys.exit(main())
