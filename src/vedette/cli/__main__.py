"""`python -m vedette.cli`: for where the `vedette` script is not on the PATH."""

from vedette.cli import main

main()
