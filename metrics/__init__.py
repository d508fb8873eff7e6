"""What happened, counted over all processes; `multiproc_dir` says how, and what to import when."""
