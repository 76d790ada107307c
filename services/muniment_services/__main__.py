"""The `muniment` command."""

from muniment_services.cli.main import main

if __name__ == "__main__":
    main()
