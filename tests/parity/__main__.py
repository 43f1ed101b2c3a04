"""Run the tests of the parity tables, and print or write the tables. See the package's docstring."""

import argparse
import datetime
import time

from tests.parity import page
from tests.parity.recording import measure
from tests.parity.rows import AREAS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write the tables into {page.PAGE.name}")
    options = parser.parse_args()
    start = time.monotonic()
    measured = measure(row.test for rows in AREAS.values() for row in rows)
    libraries = ", ".join(f"{name} {version}" for name, version in page.versions().items())
    tables = f"Measured on {datetime.date.today()} with {libraries}.\n\n{page.render(measured)}"
    if options.write:
        page.PAGE.write_text(page.with_tables(page.PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    else:
        print(tables)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
