"""``python -m neuralcollapse.cli`` is ``neuralcollapse``."""

from neuralcollapse.cli import main

main()
