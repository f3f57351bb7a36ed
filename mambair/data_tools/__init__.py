"""Public data sets fetched, prepared and checked; used by the scripts of the repository."""
