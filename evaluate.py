"""Evaluate a trained network anew, or on other images: python evaluate.py --help."""

import sys

from convolt.inference.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
