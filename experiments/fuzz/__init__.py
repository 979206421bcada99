"""Random schedules: drawn, run in the simulator, judged by the checker, and shrunk where an invariant did not hold."""
