"""The campaign: which faults, what each left behind, and whether the same work again ends as if nothing had been."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.attempt import Ended, attempt, load_what_was_loaded
from tests.faults.scenes import Scene
from tests.faults.shim import Kind

_SENTENCE = re.compile(r"(could not|cannot write|cannot be written)")
_SAVED = re.compile(r"^(?:saved|epoch) +(\d+)", re.MULTILINE)

EVERY = 10**6
"""As many as there are calls; for a full disk, as there are calls that take space."""

COUNTS = {
    "training": {"kill at a call": 80, "kill at a moment": 30, "full disk": EVERY, "read-only folder": 6,
                 "disk error": 12, "clock going back": 3},
    "tracker": {"kill at a call": 40, "kill at a moment": 6, "full disk": EVERY, "read-only folder": 4,
                "disk error": 8, "clock going back": 2},
    "statistics": {"kill at a call": EVERY, "full disk": EVERY, "read-only folder": 3, "disk error": 6},
}  # fmt: skip
"""Faults per scene and kind."""

_OF_FILES = {"kill at a call": EVERY, "kill at a moment": 2, "full disk": EVERY, "read-only folder": 1, "disk error": 2}

KINDS = {
    "kill at a call": Kind.KILL,
    "kill at a moment": Kind.NOTHING,
    "full disk": Kind.FULL_DISK,
    "read-only folder": Kind.READ_ONLY,
    "disk error": Kind.DISK_ERROR,
    "clock going back": Kind.CLOCK_BACK,
}


@dataclass(frozen=True)
class Reference:
    """A scene without a fault."""

    calls: int
    writes: tuple[int, ...]
    seconds: float
    old: dict[str, str]
    new: dict[str, str]
    """Results before and on the way, and after."""

    def allows(self, name: str, value: str) -> bool:
        """Whether a result may be found after a fault."""
        return value in (self.old.get(name), self.new.get(name))


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong; its name repeats it."""

    scene: str
    kind: str
    at: float
    """Number of a call; share of the unbroken time for a kill at a moment."""

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.scene}/{self.kind}/{self.at:g}"


@dataclass
class Verdict:
    """What a fault did."""

    fault: Fault
    struck: str = ""
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    """Neither a kill, nor an end, nor an error with a sentence."""

    @property
    def survived(self) -> bool:
        """Nothing was lost, wrong or unclear."""
        return not (self.lost or self.wrong or self.unclear)


def reference(scene: Scene, folder: Path) -> Reference:
    """Two unbroken runs, which must agree.

    Raises:
        RuntimeError: if they fail or differ: then nothing could be judged.
    """
    found = []
    for name in ("first", "second"):
        place = folder / name
        place.mkdir(parents=True)
        scene.prepare(place)
        old = scene.read(place)
        ended = attempt(lambda: scene.act(place), folder / f"{name}.log", folder=place)  # noqa: B023
        if ended.code:
            raise RuntimeError(f"{scene.name} fails without a fault: {ended.said[-2000:]}")
        load_what_was_loaded(folder / f"{name}.log")
        found.append((ended, old, scene.read(place)))
    (_, old, new), (ended, _, again) = found
    if new != again:
        raise RuntimeError(f"{scene.name} differs between two unbroken runs: {_differences(again, new)}")
    for number, shorter in enumerate(scene.shorter()):
        place = folder / f"shorter-{number}"
        place.mkdir()
        attempt(lambda: shorter.act(place), folder / "shorter.log")  # noqa: B023
        old = shorter.read(place) | old
    return Reference(ended.calls, ended.writes, ended.seconds, old, new)


def plan(scene: str, ref: Reference, seed: int) -> Iterator[Fault]:
    """The faults of a scene, drawn by the seed."""
    for kind in KINDS:
        count = COUNTS.get(scene, _OF_FILES).get(kind, 0)
        rng = random.Random(f"{seed}/{scene}/{kind}")
        if kind == "kill at a moment":
            yield from (Fault(scene, kind, round(rng.uniform(0.02, 1.1), 4)) for _ in range(count))
        else:
            numbers = ref.writes if kind == "full disk" else range(1, ref.calls + 1)
            chosen = sorted(rng.sample(numbers, min(count, len(numbers))))
            yield from (Fault(scene, kind, at) for at in chosen)


def inject(fault: Fault, scene: Scene, ref: Reference, folder: Path) -> Verdict:
    """Let it happen, look at what is left, and do the same work again."""
    verdict = Verdict(fault)
    shutil.rmtree(folder, ignore_errors=True)
    place, log = folder / "place", folder / "log.txt"
    place.mkdir(parents=True)
    scene.prepare(place)
    moment = fault.kind == "kill at a moment"
    ended = attempt(
        lambda: scene.act(place),
        log,
        folder=place,
        kind=KINDS[fault.kind],
        at=0 if moment else int(fault.at),
        kill_after=fault.at * ref.seconds if moment else None,
    )
    verdict.struck = ended.struck
    verdict.unclear += _unclear(fault, ended)
    check(verdict, scene.read, scene.reached, place, ref, ended)
    again = attempt(lambda: scene.act(place), folder / "again.log")
    finish(verdict, scene.read, place, ref, again)
    return verdict


def _unclear(fault: Fault, ended: Ended) -> list[str]:
    errors = [line for line in ended.said.splitlines() if line.startswith("neuralcollapse: ")]
    last = "".join(errors[-1:] or ended.said.strip().splitlines()[-1:])
    if fault.kind.startswith("kill"):
        return [] if ended.code in (-9, 0) else [f"ended with {ended.code}: {last}"]
    if ended.code == 0 or (ended.code == 1 and "Traceback" not in ended.said and _SENTENCE.search(last)):
        return []
    return [f"ended with {ended.code} and no sentence: {last}"]


def check(
    verdict: Verdict,
    read: Callable[[Path], dict[str, str]],
    reached: Callable[[Path], int],
    place: Path,
    ref: Reference,
    ended: Ended,
) -> None:
    """What is on disk right after a fault: nothing damaged, nothing that was said to be saved is missing."""
    try:
        verdict.wrong += [f"{name} is wrong" for name, value in read(place).items() if not ref.allows(name, value)]
        saved = [int(number) for number in _SAVED.findall(ended.said)]
        there = reached(place)
    except (ValueError, OSError) as error:
        verdict.lost.append(f"damaged: {error}")
        return
    if saved and max(saved) > there:
        verdict.lost.append(f"step {max(saved)} was said to be saved, and {there} is on disk")


def finish(verdict: Verdict, read: Callable[[Path], dict[str, str]], place: Path, ref: Reference, again: Ended) -> None:
    """What is on disk after the same work was done again: what an unbroken run leaves, to the last bit."""
    if again.code:
        verdict.lost.append(f"cannot go on: {again.said.strip()[-300:]}")
        return
    try:
        found = read(place)
    except (ValueError, OSError) as error:
        verdict.lost.append(f"damaged at the end: {error}")
        return
    verdict.lost += [f"{name} is missing at the end" for name in sorted(ref.new.keys() - found.keys())]
    verdict.wrong += _differences(found, ref.new)


def _differences(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    return [f"{name} differs at the end" for name, value in found.items() if value != wanted.get(name)]


def thinned(faults: Sequence[Fault], most: int, seed: int) -> list[Fault]:
    """At most so many faults, of as many scenes and kinds as possible."""
    rng = random.Random(seed)
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        groups.setdefault((fault.scene, fault.kind), []).append(fault)
    for group in groups.values():
        rng.shuffle(group)
    order = list(groups.values())
    rng.shuffle(order)
    chosen: list[Fault] = []
    while len(chosen) < most and any(order):
        for group in order:
            if group and len(chosen) < most:
                chosen.append(group.pop())
    return chosen
