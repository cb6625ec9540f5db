"""The web page: a live view of a run for browsers, scripts and Prometheus."""
