"""`python -m ost`, and `torchrun -m ost`."""

from ost.cli import main

if __name__ == "__main__":  # not in the decoding processes, which import it again
    main()
