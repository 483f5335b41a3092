"""Name what a trained network sees in images: python predict.py --help."""

import sys

from convolt.inference.predict import main

if __name__ == "__main__":
    sys.exit(main())
