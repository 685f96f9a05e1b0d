"""Where frames and class names meet."""
