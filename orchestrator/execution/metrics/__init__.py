"""Metrics of a running coordinator, for Prometheus: gathered when somebody asks."""
