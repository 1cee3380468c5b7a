"""``python -m tests.faults``: break the package's work in many ways, count what survives."""

from __future__ import annotations

import argparse
import functools
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import shim


def options(words: list[str]) -> argparse.Namespace:
    """What to inject, and where the table goes."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="draws the moments and the calls")
    parser.add_argument("--faults", type=int, default=10**6, help="at most so many, of as many kinds as possible")
    parser.add_argument("--work", help="only work whose name contains this")
    parser.add_argument("--only", help="faults whose name begins so; a failed campaign prints whole names")
    parser.add_argument("--output", type=Path, help="folder for faults.md and faults.json")
    parser.add_argument("--no-trees", action="store_true", help="leave out commands of several processes")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    """Run the campaign; 1 if a fault was not survived."""
    chosen = options(words)
    if not shim.preloaded():
        shim.restart_with_shim("tests.faults", words)
    # Loaded once, before the children are forked.
    import torchvision  # noqa: F401
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    import neuralcollapse.cli.report
    import neuralcollapse.train.run  # noqa: F401
    from tests.faults import table
    from tests.faults.campaign import thinned

    console = Console(stderr=True)
    root = Path(tempfile.mkdtemp(prefix="neuralcollapse-faults-"))
    start = time.monotonic()
    verdicts = []
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    try:
        with Progress(*columns, console=console, auto_refresh=False) as bar:  # no thread: this process forks
            task = bar.add_task("references", total=None)

            def told(what: str) -> None:
                bar.update(task, description=what)
                bar.refresh()

            actions = prepared(root, chosen, told)
            faults = thinned(list(actions), chosen.faults, chosen.seed)
            if chosen.only:
                faults = [fault for fault in actions if fault.name.startswith(chosen.only)]
            bar.update(task, total=len(faults))
            console.print(f"{len(faults)} faults, seed {chosen.seed}")
            for fault in [fault for fault in actions if fault in {*faults}]:
                told(fault.name)
                verdict = actions[fault]()
                verdicts.append(verdict)
                bar.advance(task)
                if chosen.output:  # what was counted so far is kept, should the campaign itself be stopped
                    table.write(chosen.output, verdicts, chosen.seed, time.monotonic() - start)
                if not verdict.survived:
                    console.print(f"{fault.name} ({verdict.struck}): {verdict.lost + verdict.wrong + verdict.unclear}")
                elif not console.is_terminal and len(verdicts) % 10 == 0:
                    console.print(f"{len(verdicts)} of {len(faults)} faults, {time.monotonic() - start:.0f} s")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(table.markdown(verdicts))
    print(f"seed {chosen.seed}, {(time.monotonic() - start) / 60:.1f} minutes")
    failed = [verdict.fault.name for verdict in verdicts if not verdict.survived]
    for name in failed:
        print(f"repeat with: python -m tests.faults --seed {chosen.seed} --only '{name}'")
    return 1 if failed or not verdicts else 0


def prepared(root: Path, chosen: argparse.Namespace, told: Callable[[str], None]) -> dict:
    """Each fault, and what injects it."""
    from tests.faults import campaign, disks, trees
    from tests.faults.campaign import Fault
    from tests.faults.scenes import Files, Scene, Statistics, Tracked, Training

    def wanted(name: str) -> bool:
        named = chosen.only.split("/")[0] if chosen.only else None
        return (not chosen.work or chosen.work in name) and named in (None, name)

    actions: dict[Fault, Callable[[], campaign.Verdict]] = {}
    training = Training()
    run = root / "source" / "run"
    pages: list[Scene] = [
        Files("report", ("report", "{}/run"), ("run/report.html",), run.parent),
        Files("measures", ("measure", "--run", "{}/run", "--json", "{}/numbers.json"), ("numbers.json",), run.parent),
        Files("saved point", ("ufm", "solve", "--num-classes", "3", "--output", "{}/point.npz"), ("point.npz",)),
        Files("landscape", ("ufm", "landscape", "--output", "{}/page.html"), ("page.html",)),
    ]
    if any(wanted(scene.name) for scene in pages[:2]):
        told("a run for the report")
        campaign.attempt(lambda: training.act(run.parent), root / "source.log")
    for scene in (training, Tracked(), Statistics(), *pages):
        if not wanted(scene.name):
            continue
        told(f"{scene.name} without a fault")
        ref = campaign.reference(scene, root / "references" / scene.name)
        for fault in campaign.plan(scene.name, ref, chosen.seed):
            actions[fault] = lambda f=fault, s=scene, r=ref: campaign.inject(f, s, r, root / "fault")
        if scene is training and disks.can_mount(root / "mount"):
            used = sum(path.stat().st_size for path in (root / "references/training/first").rglob("*")) // 1024
            rng = random.Random(f"{chosen.seed}/disks")
            drawn = [Fault(scene.name, disks.FULL, rng.randrange(8, used)) for _ in range(8)]
            drawn += [Fault(scene.name, disks.READ_ONLY, round(rng.uniform(0.1, 0.9), 3)) for _ in range(4)]
            for fault in drawn:
                actions[fault] = lambda f=fault, s=scene, r=ref: disks.inject(f, s, r, root / "fault")
    unbroken = functools.cache(lambda tree: trees.reference(tree, root / "references" / secrets.token_hex(4)))
    for tree in () if chosen.no_trees else trees.TREES:
        rng = random.Random(f"{chosen.seed}/{tree.name}/{tree.kind}")
        for _ in range(tree.count if wanted(tree.name) else 0):
            fault = Fault(tree.name, tree.kind, round(rng.uniform(0, 3), 3))
            actions[fault] = lambda f=fault, t=tree: trees.inject(t, f, unbroken(t.alone), root / "fault")
    return actions


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
