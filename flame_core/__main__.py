"""`python -m flame_core` is `flame`."""

from flame_core.cli import main

if __name__ == "__main__":
    main()
