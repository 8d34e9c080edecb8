"""What load runs measured: merged from several processes, as JSON and as a page to read."""
