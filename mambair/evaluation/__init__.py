"""The tables of the papers, measured: suites of test sets, the resumable run over them, and its reports."""
