"""What the package gives, compared with the libraries that it stands in for: the tables of `minilm_np/docs/parity.md`.

    python -m tests.parity            # run the tests of the tables and print the page's tables
    python -m tests.parity --write    # and write them into the page

- `rows.py`: what is compared, with which library, by which test
- `refusals.py`: what is refused, and the words of each error
- `recording.py`: runs the tests, and records the largest difference and the bound of each
- `page.py`: renders the tables; `tests/docs/test_parity_page.py` compares the page with them
"""
