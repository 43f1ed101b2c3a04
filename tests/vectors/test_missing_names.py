"""The manual's list of what `minilm_np.util` lacks is the difference to the installed sentence_transformers.util."""

import re
from typing import Any

from minilm_np import util
from tests.docs.pages import ROOT

PAGE = ROOT / "minilm_np" / "docs" / "from_sentence_transformers.md"
HEADING = "## What `minilm_np.util` lacks\n"


def listed_names() -> list[str]:
    """The names in the first column of the table under HEADING."""
    section = PAGE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_manual_names_all_that_util_lacks(upstream: Any) -> None:
    names = listed_names()
    assert len(names) == len(set(names)) > 40
    assert set(names) == set(upstream.__all__) - set(util.__all__)


def test_util_has_no_name_that_upstream_lacks(upstream: Any) -> None:
    assert set(util.__all__) <= set(upstream.__all__)
