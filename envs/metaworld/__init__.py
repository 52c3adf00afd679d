"""Meta-World (Yu et al. 2019): fifty manipulation tasks for a Sawyer arm, and the sets ML1, ML10, ML25 and ML45."""
