"""How good things are, measured: packs, and what they do on labelled clips."""
