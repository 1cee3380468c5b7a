"""Small changes of the package's functions, drawn at random: Cosmic Ray's operators, one at a time."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

PACKAGE = Path(__file__).parents[2] / "src" / "neuralcollapse"
ROOMS = ("geometry", "measurement", "ufm")

_ELSEWHERE = ("ranks", "gather", "embeddings")
"""Modules that are tested in processes of their own, which would not see a mutant."""

_OPERATORS = (
    "ReplaceBinaryOperator", "ReplaceComparisonOperator", "ReplaceUnaryOperator", "AddNot", "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One function with one change."""

    file: Path
    line: int
    change: str
    """The line before and after."""
    function: str
    """Qualified name."""
    first_line: int
    code: CodeType
    """Of the changed function."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.file.relative_to(PACKAGE)}:{self.line} in {self.function}: {self.change}"


def functions(code: CodeType, inside: bool = False) -> Iterator[CodeType]:
    """Outermost functions of a module or class body."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            body = constant.co_name == constant.co_qualname.rpartition(".")[2] and "__module__" in constant.co_names
            if body and "__qualname__" in constant.co_names:  # of a class
                yield from functions(constant)
            elif not constant.co_name.startswith("<"):
                yield constant


def draw(count: int, seed: int) -> list[Mutant]:
    """So many mutants, spread evenly over the rooms; places first, then one of the changes that fit there."""
    rng = random.Random(seed)
    rooms = []
    for room in ROOMS:
        files = [file for file in sorted((PACKAGE / room).rglob("*.py")) if file.stem not in _ELSEWHERE]
        places = [place for file in files for place in _places(file)]
        rng.shuffle(places)
        rooms.append(_mutants(places, rng))
    taken = itertools.chain.from_iterable(itertools.zip_longest(*rooms))
    return list(itertools.islice(filter(None, taken), count))


def _mutants(places: list[tuple[Path, list[tuple[str, int, int]]]], rng: random.Random) -> Iterator[Mutant]:
    """At most one per line."""
    lines = set()
    for file, choices in places:
        mutant = _mutate(file, *rng.choice(choices))
        if mutant is not None and (file, mutant.line) not in lines:
            lines.add((file, mutant.line))
            yield mutant


def _places(file: Path) -> list[tuple[Path, list[tuple[str, int, int]]]]:
    """Places in a file where something can change: (operator, its occurrence, line) of each change that fits."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(file.read_text())))
    found = defaultdict(list)
    for name in operator_names():
        if not name.rpartition("/")[2].startswith(_OPERATORS):
            continue
        positions = (position for node in nodes for position in get_operator(name)().mutation_positions(node))
        for occurrence, (start, _) in enumerate(positions):
            found[start].append((name, occurrence, start[0]))
    return [(file, choices) for _, choices in sorted(found.items())]


def _mutate(file: Path, operator: str, occurrence: int, line: int) -> Mutant | None:
    """The mutant; None where no function changes, as in an annotation or a constant of the module."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    before = file.read_text()
    after = mutate_code(before, get_operator(operator)(), occurrence)
    if after is None:
        return None
    try:
        new = {(code.co_qualname, code.co_firstlineno): code for code in functions(compile(after, str(file), "exec"))}
    except SyntaxError:
        return None
    for code in functions(compile(before, str(file), "exec")):
        key = (code.co_qualname, code.co_firstlineno)
        if key in new and new[key] != code:
            lines = zip(before.splitlines(), after.splitlines(), strict=False)
            change = next((f"{a.strip()}  ->  {b.strip()}" for a, b in lines if a != b), "a line is gone")
            return Mutant(file, line, change, *key, new[key])
    return None
