"""Experiments to copy and change: each file is one, and docs/EXPERIMENTS.md shows what comes out."""
