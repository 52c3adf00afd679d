"""The executable contract of task distributions.

Each rule is a small generator that yields a line for each fault, with what was expected and what was found. `family.py`
has the rules about tasks, `environment.py` those about making an environment, `run.py` those about stepping it.
"""

from metarl.contract.check import ContractError, check_distribution

__all__ = ["ContractError", "check_distribution"]
