"""What edge-mnv2 reads of this package at every start: a row for `--runtime` and one for `--delegate`.

So nothing slow is imported here. The modules that the rows name are imported where they are used.
"""

from edge_mnv2.board.accelerators import Accelerator
from edge_mnv2.runtime.table import Runtime

RUNTIME = Runtime("nearest", "edge_mnv2_nearest.runtime", "edge_mnv2_nearest", ("edge-mnv2-nearest",), (".colours",))

ACCELERATOR = Accelerator(
    "nearest",
    "edge_mnv2_nearest.device",
    # As people see it, and a pattern: its groups are fields of `edge_mnv2.runtime.delegate.DelegateSpec`.
    (("nearest[:near|far]", "nearest(:(?P<kind>near|far))?"),),
    title="Nearest",
    visible=True,
)
