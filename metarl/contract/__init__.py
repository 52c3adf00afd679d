"""The executable contract: what every task distribution promises, and whether one keeps it.

Each rule is a small generator that yields a line for whatever it finds broken, saying what was expected and what was
found: `family.py` has those on tasks, `environment.py` those on making an environment, `run.py` those on stepping it.
"""

from metarl.contract.check import ContractError, check_distribution

__all__ = ["ContractError", "check_distribution"]
