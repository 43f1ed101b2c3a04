"""`python -m minilm_np` is the command `minilm-np`."""

import sys

from minilm_np.cli import main

sys.exit(main())
