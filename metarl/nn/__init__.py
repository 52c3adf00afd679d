"""Networks as pure functions of their parameters, so that many parameter sets run at once."""
