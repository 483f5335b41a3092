"""Name what a trained network sees in images: python predict.py --help."""

import sys

from convolt.predict import main

if __name__ == "__main__":
    sys.exit(main())
