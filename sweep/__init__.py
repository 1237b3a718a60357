"""Every fault at every step: the real state machines and handlers in one process, under a virtual clock.

    engine      carries executions out, one step at a time, on the clock
    world       an account with one environment: days and nights, people, what Airflow knew
    faults      what can go wrong with one attempt of one task
    tracks      stories that together pass through every task state
    scenarios   a track with one or two faults, as many processes as there are cores
    monitors    what must hold whatever happened
    mutants     the state machines and the gate with one thing wrong, each of which must be noticed

`make sweep` runs it all and writes build/sweep.json; a scenario is replayed by its name.
"""
