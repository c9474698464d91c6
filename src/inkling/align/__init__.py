"""Losses and advantages of alignment, as functions of tensors: they know neither models nor text."""
