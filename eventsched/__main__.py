"""`python -m eventsched` is the command line."""

from eventsched.cli import main

if __name__ == "__main__":
    main()
