"""Locomotion: task families over the robots of Gymnasium's MuJoCo environments (version 5)."""
