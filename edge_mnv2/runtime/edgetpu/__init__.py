"""The Coral Edge TPU: found without its library, contacted in a process of its own, used, lost and regained."""
