"""`python3 -m peers`: see --help."""

import sys

if sys.version_info < (3, 11):
    version = ".".join(map(str, sys.version_info[:3]))
    sys.exit(
        f"bench-peers: needs Python 3.11 or later, and this is {version}; say PYTHON=python3.11"
    )

from .command import main

if __name__ == "__main__":
    sys.exit(main())
