"""The commands that messages and pages tell people to run: they work before this package is on an index."""

import itertools
import re
import subprocess
import sys
import tomllib

from tests.support.places import CHECKOUT

INSTALL = re.compile(r"pip install ((?:[\w.-]+ )*[\w.-]+)")


def texts() -> dict[str, str]:
    """The package's sources and pages, by path."""
    paths = [CHECKOUT / "README.md", *(CHECKOUT / "minilm_np").rglob("*.py"), *(CHECKOUT / "minilm_np").rglob("*.md")]
    return {str(path.relative_to(CHECKOUT)): path.read_text(encoding="utf-8") for path in paths}


def test_no_hint_installs_the_package_itself_from_an_index() -> None:
    found = {path for path, text in texts().items() if re.search(r"pip install '?minilm-np\b", text)}
    assert found == set()


def test_the_libraries_of_the_hints_are_those_of_the_project() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())}
    known = {re.split(r"[\[><=]", one)[0] for one in wanted}
    known |= {"pip", "transformers"}  # sentence-transformers brings the latter
    named = {
        library
        for path, text in texts().items()
        if path.endswith(".py")
        for match in INSTALL.finditer(text)
        for library in match[1].split()
        if not library.startswith("-")
    }
    assert {"numba", "torch", "matplotlib", "scikit-learn", "langchain-core", "chromadb"} <= named
    assert named <= known


def test_without_numba_kernels_that_must_be_compiled_are_an_error_that_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None\n"
        "import os; os.environ['MINILM_NP_KERNELS'] = 'compile'\n"
        "from minilm_np import MissingExtraError, SentenceEncoder\n"
        "for compute_type in ('float32', 'int8'):\n"
        "    try:\n"
        "        SentenceEncoder.random(compute_type=compute_type)\n"
        "    except MissingExtraError as error:\n"
        "        print(error)\n"
        "from minilm_np.train.engine import TrainingEngine\n"
        "model = SentenceEncoder.random(backend='numpy').model\n"
        "try:\n"
        "    TrainingEngine(model.config, dict(model.engine.weights()))\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
        "SentenceEncoder.random(backend='numpy').encode('a')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    line = (
        "backend 'numba' needs Numba here, which is not installed: `pip install numba`, or use backend 'numpy'. "
        "Kernels compiled in advance are not used: MINILM_NP_KERNELS is 'compile'\n"
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, 3 * line, "")
