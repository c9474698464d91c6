"""`python -m inkling` is the `inkling` command."""

from inkling.cli import main

raise SystemExit(main())
