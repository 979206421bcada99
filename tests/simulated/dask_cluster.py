"""A Dask cluster of two worker processes on this machine: says its address, and ends when its standard input does.

``python tests/simulated/dask_cluster.py``
"""

from __future__ import annotations

import sys
import tempfile


def main() -> None:
    import dask  # noqa: PLC0415  pytest looks into this file without the extra `dask`, too
    from distributed import LocalCluster  # noqa: PLC0415

    with (
        tempfile.TemporaryDirectory(prefix="hconf-dask-") as folder,  # else Dask leaves one of its own behind
        dask.config.set(temporary_directory=folder),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=40) as cluster,
    ):
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
