"""`hconf shell`: Mininet's CLI over a running conference, joined to what a run is made of: flow, faults, records, report."""
