"""Help teaches: what a command does, examples that parse, and a sentence for each option."""

from __future__ import annotations

import re
import shlex

import pytest

from neuralcollapse.cli.app import build_app
from neuralcollapse.cli.commands import COMMANDS

NAMES = [command.name for command in COMMANDS]


def test_every_command_is_listed(call) -> None:
    for words in (["--help"], ["-h"]):
        ended = call(*words)
        assert ended.code == 0
        assert ended.err == ""
        listed = ended.out.partition("Commands:")[2]
        for name in NAMES:
            assert re.search(rf"^  {name.split()[0]} ", listed, re.MULTILINE), name
        for code in ("0 ", "1 ", "2 ", "130"):
            assert re.search(rf"^  {code}", ended.out, re.MULTILINE)
    for command in COMMANDS:
        if command.name.startswith("ufm "):
            assert command.summary in call("ufm", "--help").out


@pytest.mark.parametrize("name", NAMES)
def test_a_command_explains_itself(call, name: str) -> None:
    ended = call(*name.split(), "--help")
    assert ended.code == 0
    assert ended.err == ""
    for jargon in ("type:", "null", "Optional", "Literal", "Args:", "Raises:", "None]", "STR", "BOOL", '""'):
        assert jargon not in ended.out, jargon
    examples = [line.strip() for line in ended.out.splitlines() if line.startswith("  neuralcollapse ")]
    assert any(example.startswith(f"neuralcollapse {name}") for example in examples)
    app = build_app()
    for example in (part for line in examples for part in line.split("&&")):
        words = shlex.split(example, comments=True)
        words = words[: words.index(">")] if ">" in words else words
        if "--config" in words:  # a file that the reader has and the test has not
            words[words.index("--config") + 1] = "/dev/null"
        if words[0] == "neuralcollapse":
            app.parse_args(words[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_sentence(name: str) -> None:
    app = build_app()
    for word in name.split():
        app = app[word]
    for argument in app.assemble_argument_collection(parse_docstring=True):
        if not argument.show:
            continue
        sentence = " ".join((argument.parameter.help or "").split())
        assert re.match(r"[A-Z0-9]|torchvision's", sentence), (argument.name, sentence)
        assert sentence.endswith("."), (argument.name, sentence)
        assert not re.match(r"(Of|As) ", sentence), (argument.name, sentence)


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_called_one(call, name: str) -> None:
    said = re.sub(r"\s+", " ", call(*name.split(), "--help").out)
    assert not re.search(r"--[\w-]+ TEXT (Folder|File|Run folder|Weights|Write)", said)


def test_help_says_what_is_allowed(call) -> None:
    said = re.sub(r"\s+", " ", call("train", "--help").out)
    assert "stays quick. [a whole number, all or auto; default: auto]" in said
    assert "[one or more of tensorboard, wandb]" in said
    assert "[one of sgd, adam, lbfgs; default: sgd]" in said
    assert "--data TEXT Data set to measure on: digits, mnist, " in re.sub(r"\s+", " ", call("measure", "--help").out)
    for name in ("target", "thresholds"):
        said = call("ufm", name, "--help").out
        assert said.startswith(f"Usage: neuralcollapse ufm {name} --counts N,N,N [OPTIONS]")
        assert re.search(r"--counts N,N,N .*\s+\[required\]", said)


@pytest.mark.parametrize("name", NAMES)
def test_opposites_are_explained_where_there_are_some(call, name: str) -> None:
    explained = "Each flag --x has an opposite" in call(*name.split(), "--help").out
    assert explained == (name in ("train", "measure", "certify", "savings", "reproduce", "completion"))


def test_version(call) -> None:
    from neuralcollapse import __version__

    assert call("--version").out.strip() == __version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(call, shell: str) -> None:
    script = call("completion", shell).out
    for word in ("train", "measure", "certify", "samples-per-class", "allow-missing"):
        assert word in script
