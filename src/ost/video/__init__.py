"""A video file in, upright RGB frames and tower input out."""
