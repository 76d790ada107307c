"""`python -m muniment_client`."""

import sys

from muniment_client.command import main

if __name__ == "__main__":
    sys.exit(main())
