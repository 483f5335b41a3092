"""Train a network, or many with -m: python train.py --help."""

import sys

from convolt.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
