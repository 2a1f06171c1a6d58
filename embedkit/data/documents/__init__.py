"""Files of kinds that are not plain text, or more than that: source code, documents of offices, PDF, mail."""
