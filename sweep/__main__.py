"""`make sweep`: plays every scenario, then lets every mutant be noticed; writes build/sweep.json.

make sweep                                  everything
make sweep ARGS="--only 'dies'"             scenarios whose name holds these words
make sweep ARGS="--replay 'evening | ...'"  one scenario again, by the name that was printed
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Set
from functools import partial
from pathlib import Path

from local.interpreter import TaskCall
from sweep.disturbances import every_disturbance
from sweep.faults import every_fault
from sweep.forks import Forks, in_a_copy
from sweep.mutants import Mutant, mutants
from sweep.scenarios import BY_NAME, Played, Player, Scenario, Where, Wrong, play
from sweep.tracks import TRACKS, Track
from sweep.world import ROOT, World

PAIRS = 400
Chosen = Callable[[Scenario], bool]
Place = tuple[str, str, str, str]
"""Track, state machine, task state and its resource."""
RESULT = ROOT / "build/sweep.json"


def wrongs(resource: str) -> list[Wrong]:
    """Everything that can go wrong at the first try of a task of this resource."""
    return [*every_fault(), *every_disturbance(resource)]


def walk(forks: Forks, world: World, track: Track, covered: Set[tuple[str, str]], chosen: Chosen) -> Played:
    """Plays a track, and at the first try of each new task state forks a child for everything that can go wrong."""
    player = Player(world, track)
    scenario = Scenario(track.name)

    def at_first_try(where: Where, task: TaskCall) -> Iterator[tuple[Where, Wrong]]:
        nonlocal scenario
        if (where.machine, where.state) in covered:
            return
        for wrong in wrongs(task.resource):
            forked = Scenario(track.name, ((where, wrong),))
            if chosen(forked) and forks.child(str(forked)):
                scenario, player.at_first_try = forked, lambda _, __: ()
                yield where, wrong
                return

    player.at_first_try = at_first_try
    player.prepare()
    player.play()
    return player.played(str(scenario))


def pairs(visited: list[Place], seed: int) -> Iterator[Scenario]:
    """Two things that go wrong on the same track, in shuffled order of executions; everything follows from the seed."""
    for number in range(PAIRS):
        chance = random.Random(seed * 1_000_000 + number)
        track = chance.choice(sorted({name for name, *_ in visited}))
        places = [(Where(machine, state), resource) for name, machine, state, resource in visited if name == track]
        chosen = [chance.choice(places), chance.choice(places)]
        yield Scenario(
            track,
            tuple((where, chance.choice(wrongs(resource))) for where, resource in chosen),
            seed * 1_000_000 + number + 1,
        )


def parse(name: str) -> Scenario:
    """A scenario by its printed name. Raises ValueError when there is none."""
    track, *parts = name.split(" | ")
    seed = int(parts.pop().removeprefix("seed ")) if parts and parts[-1].startswith("seed ") else 0
    chosen = []
    for part in parts:
        place, what = part.split(" / ")
        machine, state = place.split(": ", 1)
        found = [wrong for wrong in wrongs(":lambda: StartExport DescribeEnvironment") if str(wrong) == what]
        if track not in BY_NAME or not found:
            raise ValueError(f"No scenario {name!r}: unknown track or {what!r}.")
        chosen.append((Where(machine, state), found[0]))
    return Scenario(track, tuple(chosen), seed)


def probes(mutant: Mutant, visited: list[Place]) -> Iterator[Scenario]:
    """Where a mutant would show: on the tracks as they are, then where it is, then in any pair."""
    near = [each for each in visited if each[1:3] == (mutant.machine, mutant.state)]
    for name in dict.fromkeys([*(name for name, *_ in near), *BY_NAME]):
        yield Scenario(name)
    for name, machine, state, resource in near[:2]:
        for wrong in wrongs(resource):
            yield Scenario(name, ((Where(machine, state), wrong),))


def judge(world: World, mutant: Mutant, visited: list[Place]) -> Played:
    """Plays probes, each in a copy of the mutated world, until one breaks a law or cannot be played to its end."""
    mutant.apply(world)
    for scenario in probes(mutant, visited):
        if broken := in_a_copy(lambda scenario=scenario: play(world, scenario).broken):
            return Played(mutant.name, broken[:1], ends=[str(scenario)])
    return Played(mutant.name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="scenarios whose name holds these words")
    parser.add_argument("--replay", help="one scenario, by its name")
    parser.add_argument("--sample", type=int, default=1, help="only one of so many scenarios")
    parser.add_argument("--seed", type=int, default=1, help="of the pairs")
    parser.add_argument("--mutants", choices=["yes", "no", "only"], default="yes")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, World(Path(folder) / "home") as world:
        if options.replay:
            return replay(world, parse(options.replay))
        forks = Forks(len(os.sched_getaffinity(0)), Path(folder) / "scenarios")
        chosen = partial(is_chosen, options.only, options.sample) if options.mutants != "only" else lambda _: False
        visited = play_all(forks, world, chosen)
        if options.mutants != "only":
            for scenario in pairs(visited, options.seed):
                if chosen(scenario):
                    forks.run(str(scenario), partial(play, world, scenario))
        forks.wait()
        scenarios = [Played(**report) for report in forks.read()]
        noticed = []
        if options.mutants != "no":
            forks = Forks(len(os.sched_getaffinity(0)), Path(folder) / "mutants")
            for mutant in mutants():
                if zlib.crc32(mutant.name.encode()) % options.sample:
                    continue
                forks.run(mutant.name, partial(judge, world, mutant, visited), seconds=1800)
            forks.wait()
            noticed = [Played(**report) for report in forks.read()]
    return tell(scenarios, noticed, time.monotonic() - began)


def is_chosen(only: str, sample: int, scenario: Scenario) -> bool:
    """Whether its name holds these words, and chance, the same each time, picks it."""
    name = str(scenario)
    return only in name and zlib.crc32(name.encode()) % sample == 0


def play_all(forks: Forks, world: World, chosen: Chosen) -> list[Place]:
    """Every track with everything that can go wrong; returns where each of them went."""
    covered: set[tuple[str, str]] = set()
    visited: list[Place] = []
    for track in TRACKS:
        forks.run(track.name, partial(walk, forks, world, track, frozenset(covered), chosen), counted=False)
        forks.wait()
        for report in forks.read():
            if report["name"] == track.name:
                visited += [(track.name, *each) for each in report["visited"]]
                covered |= {(machine, state) for machine, state, _ in report["visited"]}
    return visited


def tell(scenarios: list[Played], noticed: list[Played], seconds: float) -> int:
    """Prints what was found and writes it down. Returns 1 when a law was broken or a mutant was not noticed."""
    broken = [played for played in scenarios if played.broken]
    unnoticed = [played for played in noticed if not played.broken]
    for played in broken:
        print(f"\n{played.name}", *played.broken, sep="\n    ")
    for played in unnoticed:
        print(f"\nnot noticed: {played.name}")
    result = {
        "scenarios": sum(played.struck for played in scenarios),
        "violations": len(broken),
        "mutants": len(noticed),
        "mutants_caught": len(noticed) - len(unnoticed),
        "seconds": round(seconds, 1),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{json.dumps(result)}")
    return int(bool(broken or unnoticed))


def replay(world: World, scenario: Scenario) -> int:
    """Plays one scenario and tells what happened, state by state."""
    played = play(world, scenario)
    for arn in world.engine.runs:
        print(world.engine.machine_of(arn), "->", *world.path(arn), sep="\n    ")
    print("\n".join(played.broken) or "nothing was broken")
    return bool(played.broken)


if __name__ == "__main__":
    raise SystemExit(main())
