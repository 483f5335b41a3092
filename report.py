"""Tables, figures and one page from finished runs: `python report.py` shows the usage."""

import sys

from convolt.reports.report import main

if __name__ == "__main__":
    sys.exit(main())
