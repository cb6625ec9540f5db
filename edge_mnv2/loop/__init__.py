"""Former names that outputs of other packages import: the modules are now below `edge_mnv2.pipeline`."""

import sys

from edge_mnv2.pipeline import decision

sys.modules[f"{__name__}.decision"] = decision
