"""For launchers: `torchrun --nproc-per-node 8 -m tove_lvlm.cli usage ...`."""

from . import main

if __name__ == "__main__":
    main()
