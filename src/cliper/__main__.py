"""``python -m cliper``, the same as the command ``cliper``."""

from cliper.cli.main import main

if __name__ == "__main__":
    main()
