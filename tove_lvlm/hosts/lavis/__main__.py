"""`python -m tove_lvlm.hosts.lavis train | evaluate | miniature`."""

from .run import main

main()
