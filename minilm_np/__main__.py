"""Run the command `minilm-np` as `python -m minilm_np`."""

import sys

from minilm_np.cli import main

sys.exit(main())
