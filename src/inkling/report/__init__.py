"""What is known about runs, for people: reports, comparisons, and where things come from."""
