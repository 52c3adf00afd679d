"""Networks as pure functions of their parameters, so that many sets of parameters run at once."""
