"""Decode video files into upright RGB frames, and turn frames into tower input."""
