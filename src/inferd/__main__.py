"""`python -m inferd` is `inferd`."""

from inferd.cli.main import main

if __name__ == "__main__":
    main()
