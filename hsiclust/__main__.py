"""`python -m hsiclust`."""

from hsiclust.cli import main

if __name__ == "__main__":
    main()
