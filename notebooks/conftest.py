"""Plain `pytest` compares the notebooks; their kernels get what they had when they were built."""

import os

import matplotlib.font_manager  # noqa: F401  builds its cache now, not with a warning in a cell
from builder.run import SAME_AGAIN

os.environ.update(SAME_AGAIN)

# A translation has the code and the outputs of the English notebook, and a test compares them:
# running both would show nothing more, and cost its seconds again.
collect_ignore_glob = ["zh/*"]
