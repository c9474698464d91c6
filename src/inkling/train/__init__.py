"""Training: one loop, and a file per stage that supplies its batches and its loss."""
