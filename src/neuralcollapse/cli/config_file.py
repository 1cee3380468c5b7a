"""``--config FILE``: options from a YAML file, under those that are typed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import CycloptsError, Parameter
from cyclopts.config import Dict, Yaml

from neuralcollapse.train.config import of_this_version

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection

ConfigFile = Annotated[Path | None, Parameter(group="Configuration", negative=())]
"""The type of a command's ``config`` option: to have it is to read the file."""


def read_config(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill the options that are not typed from the file that ``--config`` names, if the command has that option.

    Raises:
        CycloptsError: if there is no such file, it is not YAML, or it has unknown fields.
    """
    option = next((argument for argument in arguments if argument.name == "--config"), None)
    if option is None or not option.tokens:
        return
    path = Path(option.tokens[-1].value)
    if not path.exists() or path.is_dir():
        raise CycloptsError(msg=f"--config {path}: there is no such file")
    try:
        fields = Yaml(path).config
    except CycloptsError as error:
        raise CycloptsError(msg=f"--config {path} is not YAML: {error}") from error
    if not isinstance(fields, dict):
        raise CycloptsError(msg=f"--config {path} must hold one option per line, such as `epochs: 30`")
    Dict(of_this_version(fields), use_commands_as_keys=False, source=str(path))(app, commands, arguments)
