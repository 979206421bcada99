"""Sweeps: one experiment over a grid or list of settings, each with every seed.

    plan = plan_sweep(Path("my.toml"), ["conference.mode=push,hybrid"], seeds=(1, 2, 3), mode="simulated")
    outcome = run_sweep(plan, out=None, execution=Processes(2))

A point that is finished is never run again; one that was broken off is begun anew.
"""

from typing import Final

#: In a sweep's folder: what is swept, and the run folders of its points.
PLAN_FILE: Final = "sweep.json"
POINTS_DIR: Final = "points"
