"""Settings of PEARL."""

PRESETS = ()
