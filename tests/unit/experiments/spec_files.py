"""A good experiment file, to change; what refusals look like."""

from __future__ import annotations

from collections.abc import Callable

from topologies.errors import InputError

GOOD = """\
[experiment]
name = "good"
duration_s = 20

[topology]
name = "topozoo/Abilene"
csr_nodes = ["NewYork", "Chicago"]

[links.access]
delay_ms = 4

[conference]
mode = "hybrid"

[[workload]]
kind = "poisson"
rate_per_s = 1.0

[[fault]]
kind = "link-down"
target = "NewYork-Chicago"
at_s = 8.0
for_s = 4.0

[[expect]]
metric = "deliveries.ratio.p50"
at_most = 1.15

[capture]
links = ["NewYork-Chicago"]
"""

Refusal = Callable[..., InputError]
