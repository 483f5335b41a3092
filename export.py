"""Write a trained network as files for other programs: python export.py --help."""

import sys

from convolt.inference.export import main

if __name__ == "__main__":
    sys.exit(main())
