"""The Coral Edge TPU: discovered without its library, contacted in a process of its own, used, lost and regained."""

LIBRARY_VARIABLE = "EDGE_MNV2_EDGETPU_LIB"
"""The environment variable that names libedgetpu."""
