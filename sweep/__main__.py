"""`make sweep`: plays every scenario, then lets every mutant be noticed; writes build/sweep.json.

make sweep                                  every fault at every state, and what chance picks of all else
make sweep ARGS="--all"                     everything, every mutant included
make sweep ARGS="--only 'dies'"             scenarios whose name holds these words
make sweep ARGS="--replay 'evening | ...'"  one scenario again, by the name that was printed
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any

from local.interpreter import TaskCall
from sweep.disturbances import MARKS_THE_RESTORE, every_disturbance
from sweep.faults import every_fault
from sweep.forks import Forks, in_a_copy
from sweep.mutants import Mutant, mutants
from sweep.scenarios import BY_NAME, Played, Player, Scenario, Where, Wrong, play, task_states
from sweep.tracks import TRACKS, Track
from sweep.world import ROOT, World

AT_A_TIME = len(os.sched_getaffinity(0)) + 1
"""Each waits now and then."""
PAIRS = 40
ONE_IN = {
    "meets: ": 16,
    "door: ": 16,
    MARKS_THE_RESTORE: 1,
    "person: ": 16,
    "is redriven: ": 16,
    "and everybody hears": 16,
    "1: retryable after": 12,
    "1: timeout after": 12,
    "1: late": 12,
    "for an hour": 4,
    "dies": 4,
    "lie: ": 2,
}
"""Of what these words name, each state meets one in so many (which: by the seed), unless --all is asked for."""
MUTANTS_ONE_IN = 8
"""One in so many mutants is tried (which: by the seed), unless --all is asked for."""
PROBES = 50
"""So many scenarios at most are tried on a mutant."""
WAYS = 3
"""In so many of them an execution that came there by way of another fault dies, and is redriven beside another one."""
RIGHT_THERE = [
    *(str(fault) for fault in every_fault() if fault.attempt == 1),
    *(str(each) for each in every_disturbance("") if each.group in ("dies", "is redriven", "meets")),
]
"""What goes wrong at the state of a mutant, of whatever resource it is."""
AT_THE_GATE = (" / finding: ", " / proof: ", " / answer: ", " / lie: ")
"""What the gate and the guards of the delete are there for."""
EVERY_RESOURCE = ":lambda: StartExport CheckDagRun JudgeExport DescribeEnvironment DeleteEnvironment"
"""A resource to which everything can happen."""
Chosen = Callable[[Scenario], bool]
Place = tuple[str, str, str, str]
"""Track, state machine, task state and its resource."""
RESULT = ROOT / "build/sweep.json"
PLAYED = ROOT / "build/sweep-played.jsonl"
"""Where each scenario of the last sweep went, for mutants alone."""


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
        found = [wrong for wrong in wrongs(EVERY_RESOURCE) if str(wrong) == what]
        if track not in BY_NAME or not found:
            raise ValueError(f"No scenario {name!r}: unknown track or {what!r}.")
        chosen.append((Where(machine, state), found[0]))
    return Scenario(track, tuple(chosen), seed)


def probes(mutant: Mutant, played: list[Played]) -> list[Scenario]:
    """Where a mutant would show: a track as it is, scenarios in which something goes wrong right there, then those that
    came through its place, one of each kind of passage first, then of the rarest kinds one of each end.
    """
    passages: dict[frozenset[Any], list[Played]] = {}
    for each in sorted(played, key=lambda each: (each.name.count("|"), each.name)):
        if not each.broken and (passage := mutant.passage(each)):
            passages.setdefault(passage, []).append(each)
    kinds = sorted(passages.values(), key=len)
    there = next((each for each in played if f" | {mutant.place} / " in each.name), None) if mutant.place else None
    begin = there.name.partition(" / ")[0] if there else ""
    passed = [each.name for alike in kinds for each in alike]
    undisturbed = [name for name in passed if name in BY_NAME]
    chosen = dict.fromkeys(undisturbed[:1])
    chosen |= {f"{begin} / {wrong}": None for wrong in RIGHT_THERE if begin}
    beside = [wrong for wrong in RIGHT_THERE if " beside " in wrong]
    chosen |= {f"{way} | {mutant.place} / {wrong}": None for way in ways_to(begin, kinds) for wrong in beside}
    chosen |= dict.fromkeys(undisturbed)
    chosen |= {name: None for name in passed if any(group in name for group in AT_THE_GATE)}
    chosen |= {alike[0].name: None for alike in reversed(kinds)}
    for alike in kinds:
        chosen |= dict.fromkeys({tuple(each.ends): each.name for each in alike}.values())
    return [parse(name) for name in list(chosen)[:PROBES]]


def ways_to(begin: str, kinds: list[list[Played]]) -> list[str]:
    """Scenarios in which one other thing goes wrong, at different states, and which come to the place all the same."""
    ways: dict[str, str] = {}
    for each in (each for alike in kinds for each in alike if begin and each.name.count(" | ") == 1):
        track, _, where = each.name.partition(" / ")[0].partition(" | ")
        if f"{track} | {where}" != begin:
            ways.setdefault(where, each.name)
    machine = begin.partition(" | ")[2].partition(": ")[0]
    return sorted(ways.values(), key=lambda way: f" | {machine}: " not in way)[:WAYS]


def judge(world: World, mutant: Mutant, played: list[Played]) -> Played:
    """Plays probes, each in a copy of the mutated world, until one breaks a law or cannot be played to its end."""
    scenarios = probes(mutant, played)
    mutant.apply(world)
    for scenario in scenarios:
        if broken := in_a_copy(lambda scenario=scenario: play(world, scenario).broken):
            return Played(mutant.name, broken[:1], ends=[str(scenario)])
    return Played(mutant.name, ends=[str(scenario) for scenario in scenarios])


def without_the_innocent(world: World, forks: Forks, noticed: list[Played], played: Set[str]) -> Iterator[Played]:
    """Findings, but for those of a scenario that was not among the played ones and breaks a law without any mutant."""
    unsure = {each.ends[0] for each in noticed if each.broken and each.ends[0] not in played}
    for name in unsure:
        forks.run(name, partial(play, world, parse(name)))
    forks.wait()
    guilty = {report["name"] for report in forks.read() if report["name"] in unsure and report["broken"]}
    for each in noticed:
        yield dataclasses.replace(each, broken=[]) if each.broken and each.ends[0] in guilty else each


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="scenarios whose name holds these words")
    parser.add_argument("--replay", help="one scenario, by its name")
    parser.add_argument("--all", action="store_true", help="whatever comes from outside at every state, all mutants")
    parser.add_argument("--sample", type=int, default=1, help="only one of so many scenarios")
    parser.add_argument("--seed", type=int, default=1, help="of the pairs, and of what else is left to chance")
    parser.add_argument("--mutants", choices=["yes", "no", "only"], default="yes")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, World(Path(folder) / "home") as world:
        if options.replay:
            return replay(world, parse(options.replay))
        forks = Forks(AT_A_TIME, Path(folder) / "scenarios")
        everything = options.all or options.only
        chosen = partial(is_chosen, options.only, options.sample, options.seed, {} if everything else ONE_IN)
        tried = options.sample * (1 if everything else MUTANTS_ONE_IN)
        if options.mutants == "only":
            scenarios = [Played(**json.loads(line)) for line in PLAYED.read_text().splitlines()]
        else:
            visited = play_all(forks, world, chosen)
            for scenario in pairs(visited, options.seed):
                if chosen(scenario):
                    forks.run(str(scenario), partial(play, world, scenario))
            forks.wait()
            missed = sorted(set(task_states()).difference((machine, state) for _, machine, state, _ in visited))
            scenarios = [Played(**report) for report in forks.read()]
            scenarios += [Played(f"{machine}: {state}", ["no track comes here"]) for machine, state in missed]
            PLAYED.parent.mkdir(exist_ok=True)
            PLAYED.write_text("".join(f"{json.dumps(dataclasses.asdict(each))}\n" for each in scenarios))
        noticed = []
        if options.mutants != "no":
            forks = Forks(AT_A_TIME, Path(folder) / "mutants")
            for mutant in mutants():
                if options.only in mutant.name and zlib.crc32(f"{mutant.name} {options.seed}".encode()) % tried == 0:
                    forks.run(mutant.name, partial(judge, world, mutant, scenarios), seconds=1800)
            forks.wait()
            noticed = [Played(**report) for report in forks.read()]
            noticed = [*without_the_innocent(world, forks, noticed, {each.name for each in scenarios})]
    return tell(scenarios, noticed, time.monotonic() - began)


def is_chosen(only: str, sample: int, seed: int, one_in: Mapping[str, int], scenario: Scenario) -> bool:
    """Whether its name holds these words, and chance, the same for each seed, picks it."""
    name = str(scenario)
    if len(scenario.wrongs) == 1:
        sample *= next((number for words, number in one_in.items() if words in str(scenario.wrongs[0][1])), 1)
    return only in name and zlib.crc32(f"{name} {seed}".encode()) % sample == 0


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
