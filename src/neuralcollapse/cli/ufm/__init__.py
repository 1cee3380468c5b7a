"""``neuralcollapse ufm``: the commands of the unconstrained feature model."""
