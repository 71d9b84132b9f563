"""`python -m locard`."""

from locard.cli import main

if __name__ == "__main__":
    main()
