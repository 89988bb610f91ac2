"""``python -m gateway.client``: see ``command.py``."""

import sys

from gateway.client.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
