"""The presets of the built-in agents, one file per agent."""
