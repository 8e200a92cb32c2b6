"""Sweeps as jobs of a Ray cluster: sent, followed, stopped and resumed from any machine."""
