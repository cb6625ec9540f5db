"""edge-mnv2: MobileNetV2 from trained weights to a supervised real-time camera classifier on small boards."""

__version__ = "0.1.0"
