"""``neuralcollapse completion``."""

from __future__ import annotations

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /, *, install: bool = False) -> None:
    """Print a script that completes commands and options in your shell, or install it.

    For example:
      neuralcollapse completion bash --install
      neuralcollapse completion zsh > ~/.zfunc/_neuralcollapse
      source <(neuralcollapse completion bash)            # in this shell only

    Args:
        shell: Your shell.
        install: Write the script to the place where the shell looks, and say where that is.
    """
    from neuralcollapse.cli.app import build_app

    app = build_app()
    if install:
        print(f"Completion: {app.install_completion(shell=shell, add_to_startup=True)} (open a new shell to use it)")
    else:
        print(app.generate_completion(shell=shell))
