"""``python -m neuralcollapse`` is ``neuralcollapse``."""

from neuralcollapse.cli import main

main()
