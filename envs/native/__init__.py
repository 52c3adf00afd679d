"""Families whose dynamics are torch operations."""
